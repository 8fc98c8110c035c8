//! Pages for a ring within this process, and the idle processors of the machine.

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

// SAFETY: plain memory, shared by its two ends under the protocol of the ring.
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

    /// The two ends. Call this once, and drop the ends before the pages.
    pub fn ends(&self) -> (Producer, Consumer) {
        let grefs: Vec<u32> = (0..1 << self.order).collect();
        // SAFETY: the pages are mapped as long as `self`, and these are the only two ends.
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

/// The number of idle processors, measured over 200 ms.
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
