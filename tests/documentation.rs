#[test]
fn dump() {
    println!("{}", serde_json::to_string_pretty(&txconnect::config::pipeline_schema()).unwrap());
}
