//! slow_consumer
