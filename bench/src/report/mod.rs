//! Reports: a table for people, lines for programs, histograms for tools, a page for both.

pub mod hdr;
pub mod html;
pub mod json;
pub mod table;
