//! Comparisons: every case against every target, interleaved and repeated; medians, spread, and the
//! ratio to the floor.

mod bars;
mod cases;
mod floor;
mod matrix;
mod report;
mod rounds;

pub use self::floor::with_floor;
pub use self::matrix::Matrix;
pub use self::report::Results;
