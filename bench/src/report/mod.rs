//! Reports: a table for people, JSON for programs, histograms for tools, a page with plots.

pub mod hdr;
pub mod html;
pub mod json;
pub mod table;
