//! Questions with one right answer each.
//!
//! An item is right where greedy decoding of its prompt gives its answer's tokens: at each place of the answer the
//! likeliest token is the answer's. All places are looked at in one pass over prompt and answer, since up to the first
//! wrong token both ways see the same text.

mod items;
mod report;
mod score;

pub use items::{Item, parse_items, read_items, select_items};
pub use report::{Flips, TaskReport, TaskResult};
pub use score::{Question, questions, score};
