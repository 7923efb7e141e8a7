//! Answers of strangers' models, in which calls of tools are looked for. Each call that is found has a name and an object of
//! arguments, and what is made of it again is found as it was.
#![no_main]

use inference::tools;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|answer: &str| {
    let (text, calls) = tools::parse(answer);
    if calls.is_empty() {
        assert_eq!(text, answer);
    }
    for call in calls {
        assert!(!call.name.is_empty());
        let arguments: serde_json::Value = serde_json::from_str(&call.arguments).expect("arguments are JSON");
        assert!(arguments.is_object(), "{arguments}");
        let said =
            format!("<tool_call>{{\"name\":\"{}\",\"arguments\":{}}}</tool_call>", call.name, call.arguments);
        let (_, again) = tools::parse(&said);
        assert_eq!((&again[0].name, &again[0].arguments), (&call.name, &call.arguments));
    }
});
