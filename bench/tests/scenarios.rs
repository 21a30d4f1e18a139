//! Every scenario, for a fraction of a second.
