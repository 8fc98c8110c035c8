//! How long to busy-poll before asking for a notification.
//!
//! A notification costs a system call at one end and a wake-up at the other, some ten microseconds
//! together. With a processor to spare, busy-polling the ring detects data within one. Nothing
//! loops in here: a caller that gets "poll again" yields, and then calls again. Each wait is
//! evaluated when it is over, so polling that does not pay off stops by itself.

use std::time::{Duration, Instant};

/// Longest time between two polls, during which others run. Beyond it there is no processor to
/// spare.
const GAP_MAX: Duration = Duration::from_micros(100);
/// A shorter budget counts as none.
const BUDGET_MIN: Duration = Duration::from_micros(1);
/// Upper bound of the exponential backoff: after n failed attempts in a row, 2^n waits pass without
/// one.
const BACKOFF_MAX: u32 = 6;

/// The busy-polling of one link. Off by default; see [`set`](BusyPoll::set).
#[derive(Debug, Default)]
pub(crate) struct BusyPoll {
    /// The longest time to poll. Zero: polling is off.
    most: Duration,
    /// The time to poll in the next wait.
    budget: Duration,
    wait: Option<Wait>,
    /// Failed attempts in a row.
    failures: u32,
    /// Waits to sleep through before the next attempt.
    skip: u32,
}

/// The wait in progress.
#[derive(Debug)]
struct Wait {
    since: Instant,
    /// The last poll.
    last: Instant,
    /// Polling has stopped, and a notification was asked for.
    asleep: bool,
}

impl BusyPoll {
    /// Polls for at most `most`, which is also the first budget.
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

    /// Whether a wait is in progress that still polls.
    pub fn is_polling(&self) -> bool {
        self.wait.as_ref().is_some_and(|wait| !wait.asleep)
    }

    /// The ring is empty. `true`: poll again soon. `false`: ask for a notification.
    pub fn poll_again(&mut self, now: impl FnOnce() -> Instant) -> bool {
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
                wait.asleep = now - wait.since >= budget || now - wait.last >= GAP_MAX;
                wait.last = now;
                !wait.asleep
            }
        }
    }

    /// The wait was cancelled.
    pub fn cancel(&mut self) {
        self.wait = None;
    }

    /// There is data, so any wait is over.
    pub fn data_arrived(&mut self, now: impl FnOnce() -> Instant) {
        if let Some(wait) = self.wait.take() {
            match wait.asleep {
                false => {
                    self.failures = 0;
                    self.budget = self.most.min(self.budget * 2);
                }
                true if self.budget.is_zero() => self.slept(now() - wait.since),
                true => self.failed(),
            }
        }
    }

    fn failed(&mut self) {
        self.budget /= 2;
        if self.budget < BUDGET_MIN {
            self.budget = Duration::ZERO;
            self.skip = 1 << self.failures;
            self.failures = BACKOFF_MAX.min(self.failures + 1);
        }
    }

    /// A wait without polling. If it was short enough for polling to succeed, try it now and then.
    fn slept(&mut self, took: Duration) {
        if took * 2 <= self.most {
            match self.skip {
                0 => self.budget = (took * 2).max(BUDGET_MIN),
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

    /// Polls every microsecond; the number of polls before it asks for a notification.
    fn polls(poll: &mut BusyPoll, clock: &mut Clock) -> u64 {
        let polled = (0..).take_while(|_| poll.poll_again(clock.after(1)));
        polled.count() as u64
    }

    #[test]
    fn off_asks_for_a_notification_at_once_and_reads_no_clock() {
        let mut poll = BusyPoll::default();
        assert!(!poll.poll_again(|| unreachable!()));
        poll.data_arrived(|| unreachable!());
        assert!(!poll.is_on() && !poll.is_polling());
    }

    #[test]
    fn failure_halves_the_budget_and_success_doubles_it_up_to_the_most() {
        let (mut poll, mut clock) = start(64);
        for budget in [64, 32, 16] {
            assert_eq!(polls(&mut poll, &mut clock), budget);
            assert!(!poll.is_polling());
            poll.data_arrived(clock.after(1_000));
        }
        for budget in [8, 16, 32, 64, 64] {
            assert_eq!(poll.budget, Duration::from_micros(budget));
            assert!(poll.poll_again(clock.after(1)) && poll.is_polling());
            poll.data_arrived(clock.after(1));
        }
    }

    #[test]
    fn long_waits_stop_polling_and_short_ones_resume_it() {
        let (mut poll, mut clock) = start(100);
        for _ in 0..20 {
            polls(&mut poll, &mut clock);
            poll.data_arrived(clock.after(10_000));
        }
        assert_eq!(polls(&mut poll, &mut clock), 0);
        poll.data_arrived(clock.after(15));
        assert_eq!(
            polls(&mut poll, &mut clock),
            0,
            "not after the first short wait"
        );
        poll.data_arrived(clock.after(15));
        assert_eq!(poll.budget, Duration::from_micros(30));
        assert!(poll.poll_again(clock.after(1)));
    }

    #[test]
    fn failed_attempts_become_rare() {
        let (mut poll, mut clock) = start(100);
        // As when both ends share a processor: while one polls, the other cannot run.
        let mut polled = 0;
        for _ in 0..2_000 {
            polled += polls(&mut poll, &mut clock);
            poll.data_arrived(clock.after(10));
        }
        assert!(polled < 2_500, "{polled}");
        // When polling pays off again, it soon resumes.
        for _ in 0..200 {
            poll.poll_again(clock.after(1));
            poll.data_arrived(clock.after(2));
        }
        assert_eq!(poll.budget, Duration::from_micros(100));
    }

    #[test]
    fn a_late_poll_is_the_last() {
        let (mut poll, mut clock) = start(10_000);
        assert!(poll.poll_again(clock.after(1)));
        assert!(poll.poll_again(clock.after(50)));
        assert!(!poll.poll_again(clock.after(200)));
        assert!(!poll.poll_again(clock.after(1)), "until the wait is over");
        poll.data_arrived(clock.after(1));
        assert_eq!(poll.budget, Duration::from_micros(5_000));
    }
}
