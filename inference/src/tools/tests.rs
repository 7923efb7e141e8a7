//! What templates make of tools and calls, what grammars allow, and what is read of answers, hostile ones too.

mod templates;

use super::*;
use crate::chat::{Chat, ChatTemplate, Message, TemplateError};
use proptest::prelude::*;

fn weather() -> Tool {
    Tool {
        name: "weather".to_owned(),
        description: "The weather of a place".to_owned(),
        parameters: r#"{"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}"#.to_owned(),
    }
}

fn clock() -> Tool {
    Tool { name: "clock".to_owned(), description: String::new(), parameters: String::new() }
}

fn call(name: &str, arguments: &str) -> ToolCall {
    let id = format!("call_{name}");
    ToolCall { id, name: name.to_owned(), arguments: arguments.to_owned() }
}

/// A question, `calls`, their results.
fn chat(calls: &[ToolCall]) -> Chat {
    let mut messages = vec![Message::new("system", "Be brief."), Message::new("user", "Weather in Bern?")];
    messages.push(Message { tool_calls: calls.to_vec(), ..Message::new("assistant", "") });
    messages.extend(calls.iter().map(|call| Message {
        tool_call_id: Some(call.id.clone()),
        ..Message::new("tool", format!("result of {}", call.name))
    }));
    Chat { messages, tools: vec![weather(), clock()], now: 0 }
}

fn render(template: &str, chat: &Chat) -> Result<String, TemplateError> {
    ChatTemplate::new(Some(template), "<s>", "</s>")?.render(chat)
}

const TWO: [(&str, &str); 2] = [("weather", r#"{"place": "Bern", "days": 2}"#), ("clock", "")];

fn two() -> Vec<ToolCall> {
    TWO.iter().map(|(name, arguments)| call(name, arguments)).collect()
}

#[test]
fn a_template_of_hermes_kind() {
    assert_eq!(
        render(templates::HERMES, &chat(&two())).unwrap(),
        r#"<|im_start|>system
Be brief.

# Tools
<tools>
{"type": "function", "function": {"name": "weather", "description": "The weather of a place", "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}}}
{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
</tools>
Call within <tool_call></tool_call>.<|im_end|>
<|im_start|>user
Weather in Bern?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"place": "Bern", "days": 2}}
</tool_call>
<tool_call>
{"name": "clock", "arguments": {}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
result of weather
</tool_response>
<tool_response>
result of clock
</tool_response><|im_end|>
<|im_start|>assistant
"#
    );
    let without = Chat { tools: Vec::new(), messages: vec![Message::new("user", "Hi")], now: 0 };
    assert_eq!(
        render(templates::HERMES, &without).unwrap(),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn a_template_of_llamas_kind() {
    let mut chat = chat(&two()[..1]);
    chat.tools = vec![clock()];
    assert_eq!(
        render(templates::LLAMA3, &chat).unwrap(),
        r#"<s><|start_header_id|>system<|end_header_id|>

Environment: ipython
Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

Call with {"name": function name, "parameters": arguments}.

{
    "type": "function",
    "function": {
        "name": "clock",
        "parameters": {
            "type": "object",
            "properties": {}
        }
    }
}

Weather in Bern?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

{"name": "weather", "parameters": {"place": "Bern", "days": 2}}<|eot_id|><|start_header_id|>ipython<|end_header_id|>

result of weather<|eot_id|><|start_header_id|>assistant<|end_header_id|>

"#
    );
}

#[test]
fn a_template_of_mistrals_kind_gets_ids_of_nine_characters() {
    let mut chat = chat(&two());
    chat.messages.remove(0);
    let id = |name: &str| blake3::hash(format!("call_{name}").as_bytes()).to_hex()[..9].to_owned();
    let (weather, clock) = (id("weather"), id("clock"));
    assert_eq!(
        render(templates::MISTRAL, &chat).unwrap(),
        [
            r#"<s>[AVAILABLE_TOOLS] [{"type": "function", "function": {"name": "weather", "description": "The weather of a place", "parameters": {"type": "object", "properties": {"place": {"type": "string"}, "days": {"type": "integer"}}, "required": ["place"]}}}, "#,
            r#"{"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}][/AVAILABLE_TOOLS]"#,
            r#"[INST] Weather in Bern?[/INST][TOOL_CALLS] ["#,
            &format!(r#"{{"name": "weather", "arguments": {{"place": "Bern", "days": 2}}, "id": "{weather}"}}, "#),
            &format!(r#"{{"name": "clock", "arguments": {{}}, "id": "{clock}"}}]</s>"#),
            &format!(r#"[TOOL_RESULTS] {{"content": result of weather, "call_id": "{weather}"}}[/TOOL_RESULTS]"#),
            &format!(r#"[TOOL_RESULTS] {{"content": result of clock, "call_id": "{clock}"}}[/TOOL_RESULTS]"#),
        ]
        .concat()
    );
}

#[test]
fn a_template_without_tools_is_told_of_them_in_messages() {
    let told = r#"Be brief.

You can call these tools, each described by a line of JSON:
<tools>
{"name":"weather","description":"The weather of a place","parameters":{"type":"object","properties":{"place":{"type":"string"},"days":{"type":"integer"}},"required":["place"]}}
{"name":"clock","parameters":{"type":"object","properties":{}}}
</tools>
To call a tool, answer with its name and its arguments, exactly in this form:
<tool_call>
{"name": "the tool's name", "arguments": {"argument": "value"}}
</tool_call>"#;
    let mut chat = chat(&two());
    let rest = r#"<|im_start|>user
Weather in Bern?<|im_end|>
<|im_start|>assistant
<tool_call>
{"name": "weather", "arguments": {"place": "Bern", "days": 2}}
</tool_call>
<tool_call>
{"name": "clock", "arguments": {}}
</tool_call><|im_end|>
<|im_start|>user
<tool_response>
result of weather
</tool_response>
<tool_response>
result of clock
</tool_response><|im_end|>
<|im_start|>assistant
"#;
    let text = render(templates::NONE, &chat).unwrap();
    assert_eq!(text, format!("<|im_start|>system\n{told}<|im_end|>\n{rest}"));
    // Without a system message the introduction is one; without tools, calls and results are told all the same.
    chat.messages.remove(0);
    let told = told.strip_prefix("Be brief.\n\n").unwrap();
    assert_eq!(
        render(templates::NONE, &chat).unwrap(),
        format!("<|im_start|>system\n{told}<|im_end|>\n{rest}")
    );
    chat.tools.clear();
    assert_eq!(render(templates::NONE, &chat).unwrap(), rest);
}

#[test]
fn the_syntax_is_the_templates() {
    assert_eq!(CallSyntax::of(Some(templates::HERMES)), CallSyntax::Hermes);
    assert_eq!(CallSyntax::of(Some(templates::LLAMA3)), CallSyntax::Llama3);
    assert_eq!(CallSyntax::of(Some(templates::MISTRAL)), CallSyntax::Mistral);
    assert_eq!(CallSyntax::of(Some(templates::NONE)), CallSyntax::Hermes);
    assert_eq!(CallSyntax::of(None), CallSyntax::Hermes);
    let template = ChatTemplate::new(Some(templates::LLAMA3), "", "").unwrap();
    assert_eq!(template.call_syntax(), CallSyntax::Llama3);
}

#[test]
fn grammars_are_pinned() {
    let tools = [weather(), clock()];
    let weather = r#"%json {"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "},"type":"object","properties":{"place":{"type":"string"},"days":{"type":"integer"}},"required":["place"]}"#;
    let clock = r#"%json {"x-guidance":{"whitespace_flexible":false,"item_separator":", ","key_separator":": "},"type":"object","properties":{}}"#;
    let required = grammar(&tools, &ToolChoice::Required, CallSyntax::Hermes).unwrap().unwrap();
    assert_eq!(
        required,
        format!(
            r#"start: call ("\n" call){{0,15}}
call: call_0 | call_1
call_0: "<tool_call>\n{{\"name\": \"weather\", \"arguments\": " arguments_0 "}}\n</tool_call>"
arguments_0: {weather}
call_1: "<tool_call>\n{{\"name\": \"clock\", \"arguments\": " arguments_1 "}}\n</tool_call>"
arguments_1: {clock}
"#
        )
    );
    let named = ToolChoice::Named("clock".to_owned());
    assert_eq!(
        grammar(&tools, &named, CallSyntax::Llama3).unwrap().unwrap(),
        format!(
            r#"start: call
call: call_0
call_0: "{{\"name\": \"clock\", \"parameters\": " arguments_0 "}}"
arguments_0: {clock}
"#
        )
    );
    assert_eq!(
        grammar(&tools[..1], &ToolChoice::Required, CallSyntax::Mistral).unwrap().unwrap(),
        format!(
            r#"start: "[TOOL_CALLS] [" call (", " call){{0,15}} "]"
call: call_0
call_0: "{{\"name\": \"weather\", \"arguments\": " arguments_0 "}}"
arguments_0: {weather}
"#
        )
    );
    let schema = crate::Constraint::schema(r#"{"type":"object"}"#).unwrap();
    assert_eq!(
        grammar_or(&tools[1..], &schema, CallSyntax::Hermes).unwrap(),
        format!(
            r#"start: answer | calls
answer: %json {{"type":"object","x-guidance":{{"whitespace_flexible":false,"json_allowed_escapes":"nrbtf\\\""}}}}
calls: call ("\n" call){{0,15}}
call: call_0
call_0: "<tool_call>\n{{\"name\": \"clock\", \"arguments\": " arguments_0 "}}\n</tool_call>"
arguments_0: {clock}
"#
        )
    );
    for choice in [ToolChoice::None, ToolChoice::Auto] {
        assert_eq!(grammar(&tools, &choice, CallSyntax::Hermes), Ok(None));
    }
}

#[test]
fn a_schema_cannot_become_grammar() {
    let schema = |parameters: &str| {
        let tool = Tool { parameters: parameters.to_owned(), ..clock() };
        grammar(&[tool], &ToolChoice::Required, CallSyntax::Hermes).map(|rules| {
            let rules = rules.unwrap();
            rules.split_once("\"key_separator\":\": \"},").unwrap().1.trim_end().to_owned()
        })
    };
    assert!(matches!(schema("{}\nstart: /.*/"), Err(ToolError::NoObject { .. })));
    assert!(matches!(schema("[]"), Err(ToolError::NoObject { .. })));
    assert!(matches!(schema("\"x\""), Err(ToolError::NoObject { .. })));
    assert_eq!(
        schema("{\"title\": \"}\\nstart: x\"}").unwrap(),
        "\"type\":\"object\",\"title\":\"}\\nstart: x\"}"
    );
    assert_eq!(schema("{ }").unwrap(), "\"type\":\"object\"}");
    assert_eq!(
        schema("{\"$ref\": \"#/$defs/a\", \"$defs\": {\"a\": {\"type\": \"object\"}}}").unwrap(),
        "\"$ref\":\"#/$defs/a\",\"$defs\":{\"a\":{\"type\":\"object\"}}}"
    );
    // Keys keep their order, in the grammar as in prompts.
    assert_eq!(
        schema("{\"type\":\"object\",\"b\":1,\"a\":2.0}").unwrap(),
        "\"type\":\"object\",\"b\":1,\"a\":2.0}"
    );
}

#[test]
fn tools_out_of_bounds_are_named() {
    let refused = |tools: &[Tool], choice| grammar(tools, &choice, CallSyntax::Hermes).unwrap_err();
    let named = |name: &str| Tool { name: name.to_owned(), ..clock() };
    for name in ["", "a b", "a\"", "ä", &"x".repeat(MAX_NAME + 1)] {
        assert!(matches!(refused(&[named(name)], ToolChoice::Auto), ToolError::Name { .. }), "{name}");
    }
    assert_eq!(refused(&[clock(), clock()], ToolChoice::Auto), ToolError::Twice { name: "clock".to_owned() });
    let many: Vec<Tool> = (0..=MAX_TOOLS).map(|at| named(&format!("t{at}"))).collect();
    assert_eq!(refused(&many, ToolChoice::Auto), ToolError::TooMany { what: "tools", count: 129, most: 128 });
    let long = Tool { description: "x".repeat(MAX_DESCRIPTION + 1), ..clock() };
    assert!(matches!(refused(&[long], ToolChoice::Auto), ToolError::TooLong { .. }));
    let large = Tool { parameters: format!("{{\"a\": \"{}\"}}", "x".repeat(MAX_PARAMETERS)), ..clock() };
    assert!(matches!(refused(std::slice::from_ref(&large), ToolChoice::Auto), ToolError::TooLong { .. }));
    assert_eq!(refused(&[], ToolChoice::Required), ToolError::NoTools);
    let unknown = ToolChoice::Named("weather".to_owned());
    assert_eq!(refused(&[clock()], unknown), ToolError::Unknown { name: "weather".to_owned() });
    // The same bounds hold for prompts, of both kinds.
    for template in [templates::HERMES, templates::NONE] {
        let chat = |tools| Chat { tools, messages: vec![Message::new("user", "Hi")], now: 0 };
        let error = render(template, &chat(vec![large.clone()])).unwrap_err();
        assert!(matches!(error, TemplateError::Tools(ToolError::TooLong { .. })), "{error}");
    }
    let broken = render(templates::HERMES, &chat(&[call("weather", "{\"place\":")])).unwrap_err();
    assert!(matches!(broken, TemplateError::Tools(ToolError::NoObject { .. })), "{broken}");
    let calls = vec![call("clock", "{}"); MAX_CALLS + 1];
    let error = render(templates::HERMES, &chat(&calls)).unwrap_err();
    assert!(matches!(error, TemplateError::Tools(ToolError::TooMany { what: "calls", .. })), "{error}");
}

/// Names and arguments of the calls of an answer, and its text.
fn read(answer: &str) -> (String, Vec<(String, String)>) {
    let (text, calls) = parse(answer);
    (text, calls.into_iter().map(|call| (call.name, call.arguments)).collect())
}

fn found(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn calls_are_found_in_every_syntax() {
    let weather = || found("weather", "{\"place\":\"Bern\",\"days\":2}");
    let both = vec![weather(), found("clock", "{}")];
    for syntax in [CallSyntax::Hermes, CallSyntax::Llama3, CallSyntax::Mistral] {
        assert_eq!(read(&syntax.write(&two())), (String::new(), both.clone()), "{syntax:?}");
    }
    let json = r#"{"name": "weather", "arguments": {"place": "Bern", "days": 2}}"#;
    for answer in [
        format!("[{json}]"),
        format!("<|python_tag|>{json}"),
        format!("<tool_call>{json}</tool_call>"),
        format!("<tool_call>\n{json}\n"),
        format!("[TOOL_CALLS]{json}"),
        r#"{"type": "function", "name": "weather", "parameters": "{\"place\": \"Bern\", \"days\": 2}"}"#
            .to_owned(),
    ] {
        assert_eq!(read(&answer), (String::new(), vec![weather()]), "{answer}");
    }
    let among = format!("Let me see.\n\n<tool_call>\n{json}\n</tool_call>\n");
    assert_eq!(read(&among), ("Let me see.".to_owned(), vec![weather()]));
}

#[test]
fn what_is_no_whole_call_stays_text() {
    for answer in [
        "",
        " plain text \n",
        "{\"name\": \"Bob\"}",
        "{\"name\": \"Bob\", \"arguments\": 3}",
        "{\"name\": \"a b\", \"arguments\": {}}",
        "[]",
        "[[\"a\", {}]]",
        "[{\"name\": \"a\", \"arguments\": {}}, 3]",
        "<tool_call>\n{\"name\": \"a\", \"arguments\": {\"x\": ",
        "<tool_call>\n{\"name\": \"a\", \"arguments\": {}}\n</tool_",
        "<tool_call></tool_call>",
        "[TOOL_CALLS] [{\"name\": \"a\", \"arguments\": {}}",
        "see {\"name\": \"a\", \"arguments\": {}}",
        "{\"name\": \"a\", \"arguments\": {}, \"parameters\": {}}",
    ] {
        assert_eq!(parse(answer), (answer.to_owned(), Vec::new()));
    }
    // A broken call does not hide the next one.
    let answer = "<tool_call>{oops}</tool_call><tool_call>{\"name\": \"a\", \"arguments\": {}}</tool_call>";
    assert_eq!(read(answer), ("<tool_call>{oops}</tool_call>".to_owned(), vec![found("a", "{}")]));
}

#[test]
fn ids_follow_from_content_and_position() {
    let answer =
        CallSyntax::Hermes.write(&[call("clock", "{}"), call("clock", "{}"), call("clock", "{\"a\":1}")]);
    let ids: Vec<String> = parse(&answer).1.into_iter().map(|call| call.id).collect();
    assert_eq!(ids, IDS);
}

#[test]
fn hostile_answers_come_to_an_end() {
    let deep = format!("<tool_call>{}", "[".repeat(200_000));
    assert_eq!(parse(&deep), (deep.clone(), Vec::new()));
    let marks = "<tool_call>[{\"name\":\"".repeat(50_000);
    assert_eq!(parse(&marks), (marks.clone(), Vec::new()));
    let calls = "<tool_call>{\"name\":\"a\",\"arguments\":{}}</tool_call>".repeat(1000);
    let (text, found) = parse(&calls);
    assert_eq!((found.len(), text.matches("<tool_call>").count()), (MAX_CALLS, 1000 - MAX_CALLS));
    let list = format!("[{}]", vec!["{\"name\":\"a\",\"arguments\":{}}"; 1000].join(","));
    assert_eq!(parse(&list), (list.clone(), Vec::new()));
}

proptest! {
    #[test]
    fn any_text_is_read_without_harm(
        pieces in prop::collection::vec(prop_oneof![
            "\\PC{0,8}",
            prop::sample::select(vec![
                "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "<|python_tag|>", "{\"name\": \"a\", \"arguments\": {}}",
                "{", "}", "[", "]", "\"", "\\", "{\"name\":", "\"a\"", ",", "\n", "é",
            ]).prop_map(str::to_owned),
        ], 0..20),
    ) {
        let answer = pieces.concat();
        let (text, calls) = parse(&answer);
        if calls.is_empty() {
            prop_assert_eq!(text, answer);
        } else {
            prop_assert!(text.len() < answer.len());
        }
    }

    #[test]
    fn what_is_written_is_read_again(
        calls in prop::collection::vec(("[a-zA-Z0-9_-]{1,64}", prop::collection::btree_map("\\PC{0,5}", "\\PC*", 0..4)), 1..8),
    ) {
        let calls: Vec<ToolCall> =
            calls.iter().map(|(name, arguments)| call(name, &serde_json::to_string(arguments).unwrap())).collect();
        let expected: Vec<_> = calls.iter().map(|call| found(&call.name, &call.arguments)).collect();
        for syntax in [CallSyntax::Hermes, CallSyntax::Llama3, CallSyntax::Mistral] {
            prop_assert_eq!(read(&syntax.write(&calls)), (String::new(), expected.clone()));
        }
    }
}

/// As computed elsewhere, from the words of the definition.
const IDS: [&str; 3] =
    ["call_e6cd5468f185dba06addaeab", "call_95150a346bf5d836d864c81c", "call_c172f745c1ca82c7fa625085"];
