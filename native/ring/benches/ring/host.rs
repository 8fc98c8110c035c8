//! Pages for a ring within this process, and how idle the machine is.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::time::Duration;
use tube_ring::{Consumer, ControlPage, DataArea, Direction, PAGE, Producer};

/// A control page and 2^order data pages.
pub struct Pages {
    base: NonNull<u8>,
    layout: Layout,
    order: u32,
}

// SAFETY: plain memory that the ends made of it share as the ring prescribes.
unsafe impl Sync for Pages {}

impl Pages {
    pub fn new(order: u32) -> Pages {
        let layout = Layout::from_size_align(PAGE + (PAGE << order), PAGE).expect("a small size");
        // SAFETY: the size is above zero.
        let base = unsafe { alloc_zeroed(layout) };
        let base = NonNull::new(base).unwrap_or_else(|| handle_alloc_error(layout));
        Pages {
            base,
            layout,
            order,
        }
    }

    /// The two ends. To be called once, and the ends to be dropped before the pages.
    pub fn ends(&self) -> (Producer, Consumer) {
        let grefs: Vec<u32> = (0..1 << self.order).collect();
        // SAFETY: the pages are mapped as long as `self`, and here are the one producer and the one consumer.
        let (control, out, into) = unsafe {
            let data = self.base.add(PAGE);
            (
                ControlPage::from_raw(self.base),
                DataArea::from_raw(data, self.order),
                DataArea::from_raw(data, self.order),
            )
        };
        control.initialise(Direction::Tx, self.order, 1, &grefs);
        let producer = Producer::new(control.clone(), out);
        (producer, Consumer::new(control, into, 1 << 20))
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and the ends are gone.
        unsafe { dealloc(self.base.as_ptr(), self.layout) };
    }
}

/// How many processors are idle just now; waits a moment to see.
pub fn idle_cpus() -> f64 {
    let (idle_before, all_before) = ticks();
    std::thread::sleep(Duration::from_millis(200));
    let (idle, all) = ticks();
    let cpus = std::thread::available_parallelism().map_or(1, |n| n.get());
    (idle - idle_before) as f64 / (all - all_before).max(1) as f64 * cpus as f64
}

/// Idle ticks of all processors, and all ticks: user nice system idle iowait irq softirq steal.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").expect("Linux");
    let line = stat.lines().next().unwrap_or_default();
    let fields: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .filter_map(|field| field.parse().ok())
        .collect();
    (fields[3] + fields[4], fields.iter().sum())
}
