//! Criterion benchmarks of the parts on the hot path; see `benches/hot_path.rs`.
