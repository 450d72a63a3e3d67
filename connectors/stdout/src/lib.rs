//! The stdout sink: one JSON document per line
