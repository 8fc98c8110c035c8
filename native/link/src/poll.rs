//! How long to look for data before asking for a bell.
//!
//! A bell costs a system call at the one end and a wake-up at the other, some ten microseconds together. Who
//! has a processor to spare looks into the ring again and again instead, and hears within one. NullDeliver loops
//! in here: a caller that is told to look again lets others run, and then calls. Each wait is judged when
//! it is over, so what does not pay is given up by itself.

use std::time::{Duration, Instant};

/// Between two looks others run. If they run for longer than this, the processor is not to spare.
const LATE: Duration = Duration::from_micros(100);
/// To try for less than this is not to try.
const LEAST: Duration = Duration::from_micros(1);
/// Deferred so many vain attempts in a row, the next is made after 2^so many waits.
const PATIENCE: u32 = 6;

/// The state of one link's polling. Switched off until [`set`](BusyPoll::set) says otherwise.
#[derive(Debug, Default)]
pub(crate) struct BusyPoll {
    /// The longest time to look. Zero: polling is off.
    most: Duration,
    /// The time to look, this once.
    budget: Duration,
    wait: Option<Wait>,
    /// Attempts in a row that found nothing.
    vain: u32,
    /// Waits to sleep through before the next attempt.
    skip: u32,
}

/// A wait that is not over.
#[derive(Debug)]
struct Wait {
    since: Instant,
    /// The last look.
    last: Instant,
    /// The looks were given up, and a bell asked for.
    asleep: bool,
}

impl BusyPoll {
    /// Looks for at most `most`, and at first for that long.
    pub fn set(&mut self, most: Duration) {
        *self = BusyPoll {
            most,
            budget: most,
            ..BusyPoll::default()
        };
    }

    pub fn is_on(&self) -> bool {
        !self.most.is_zero()
    }

    /// Looks are being made, and no bell is asked for.
    pub fn is_awake(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| !wait.asleep)
    }

    /// There is nothing. True: look again soon. False: ask for a bell.
    pub fn look_again(&mut self, now: impl FnOnce() -> Instant) -> bool {
        if !self.is_on() {
            return false;
        }
        let (now, budget) = (now(), self.budget);
        match &mut self.wait {
            None => {
                self.wait = Some(Wait {
                    since: now,
                    last: now,
                    asleep: budget.is_zero(),
                });
                !budget.is_zero()
            }
            Some(wait) if wait.asleep => false,
            Some(wait) => {
                wait.asleep = now - wait.since >= budget || now - wait.last >= LATE;
                wait.last = now;
                !wait.asleep
            }
        }
    }

    /// The wait was given up.
    pub fn forget(&mut self) {
        self.wait = None;
    }

    /// There is something.
    pub fn over(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(wait) = self.wait.take() {
            match wait.asleep {
                false => {
                    self.vain = 0;
                    self.budget = self.most.min(self.budget * 2);
                }
                true if self.budget.is_zero() => self.slept(now() - wait.since),
                true => self.missed(),
            }
        }
    }

    fn missed(&mut self) {
        self.budget /= 2;
        if self.budget < LEAST {
            self.budget = Duration::ZERO;
            self.skip = 1 << self.vain;
            self.vain = PATIENCE.min(self.vain + 1);
        }
    }

    /// A wait without a look, and short enough that looks might have met its end: that is worth a try now
    /// and then.
    fn slept(&mut self, took: Duration) {
        if took * 2 <= self.most {
            match self.skip {
                0 => self.budget = (took * 2).max(LEAST),
                _ => self.skip -= 1,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clock(Instant);

    impl Clock {
        fn after(&mut self, us: u64) -> impl FnOnce() -> Instant + use<> {
            self.0 += Duration::from_micros(us);
            let now = self.0;
            move || now
        }
    }

    fn start(most: u64) -> (BusyPoll, Clock) {
        let mut poll = BusyPoll::default();
        poll.set(Duration::from_micros(most));
        (poll, Clock(Instant::now()))
    }

    /// Looks every microsecond; how many looks there were before the bell was asked for.
    fn looks(poll: &mut BusyPoll, clock: &mut Clock) -> u64 {
        let looked = (0..).take_while(|_| poll.look_again(clock.after(1)));
        looked.count() as u64
    }

    #[test]
    fn off_is_a_bell_at_once_and_no_clock_is_read() {
        let mut poll = BusyPoll::default();
        assert!(!poll.look_again(|| unreachable!()));
        poll.over(|| unreachable!());
        assert!(!poll.is_on() && !poll.is_awake());
    }

    #[test]
    fn a_miss_halves_and_a_hit_doubles_up_to_the_most() {
        let (mut poll, mut clock) = start(64);
        for budget in [64, 32, 16] {
            assert_eq!(looks(&mut poll, &mut clock), budget);
            assert!(!poll.is_awake());
            poll.over(clock.after(1_000));
        }
        for budget in [8, 16, 32, 64, 64] {
            assert_eq!(poll.budget, Duration::from_micros(budget));
            assert!(poll.look_again(clock.after(1)) && poll.is_awake());
            poll.over(clock.after(1));
        }
    }

    #[test]
    fn long_waits_end_it_and_short_ones_begin_it_again() {
        let (mut poll, mut clock) = start(100);
        for _ in 0..20 {
            looks(&mut poll, &mut clock);
            poll.over(clock.after(10_000));
        }
        assert_eq!(looks(&mut poll, &mut clock), 0);
        poll.over(clock.after(15));
        assert_eq!(looks(&mut poll, &mut clock), 0, "not after the first");
        poll.over(clock.after(15));
        assert_eq!(poll.budget, Duration::from_micros(30));
        assert!(poll.look_again(clock.after(1)));
    }

    #[test]
    fn vain_attempts_become_rare() {
        let (mut poll, mut clock) = start(100);
        // As where both ends share a processor: while one looks the other cannot answer.
        let mut looked = 0;
        for _ in 0..2_000 {
            looked += looks(&mut poll, &mut clock);
            poll.over(clock.after(10));
        }
        assert!(looked < 2_500, "{looked}");
        // And when it pays again, it is soon done again.
        for _ in 0..200 {
            poll.look_again(clock.after(1));
            poll.over(clock.after(2));
        }
        assert_eq!(poll.budget, Duration::from_micros(100));
    }

    #[test]
    fn a_late_look_is_the_last() {
        let (mut poll, mut clock) = start(10_000);
        assert!(poll.look_again(clock.after(1)));
        assert!(poll.look_again(clock.after(50)));
        assert!(!poll.look_again(clock.after(200)));
        assert!(!poll.look_again(clock.after(1)), "until the wait is over");
        poll.over(clock.after(1));
        assert_eq!(poll.budget, Duration::from_micros(5_000));
    }
}
