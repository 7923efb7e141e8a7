//! OpenAI's endpoints before an agent that takes everything: forms, tools, likelihoods, several choices. The agent has no
//! model, so that each answer shows what was ordered of it.

use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::oracle::{Gateway, chat_body, chunks, joined, with};
use crate::support::http::Request;
use crate::support::text;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_choices_are_several_jobs_in_one_reply() {
    let gateway = Gateway::up().await;
    let whole = gateway.chat("hello", &json!({ "n": 3 })).json();
    let choices = whole["choices"].as_array().expect("choices");
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], format!("hello {index}"));
    }
    assert_eq!((choices.len(), &whole["usage"]["completion_tokens"]), (3, &json!(6)));
    let receipts = whole["llamesh"]["choices"].as_array().expect("receipts");
    assert_eq!((receipts.len(), &receipts[0]["receipt"]), (3, &whole["llamesh"]["receipt"]));
    assert_ne!(receipts[0]["receipt"], receipts[1]["receipt"]);

    let streamed = gateway
        .chat("hello", &json!({ "n": 3, "stream": true, "stream_options": { "include_usage": true } }));
    let streamed = chunks(&streamed);
    for index in 0..3 {
        assert_eq!(joined(&streamed, index, |choice| &choice["delta"]["content"]), format!("hello {index}"));
        assert_eq!(joined(&streamed, index, |choice| &choice["delta"]["role"]), "assistant");
        assert_eq!(joined(&streamed, index, |choice| &choice["finish_reason"]), "stop");
    }
    assert_eq!(streamed.last().expect("a chunk")["usage"]["completion_tokens"], 6);
    let before = &streamed[..streamed.len() - 1];
    assert!(before.iter().all(|chunk| chunk["usage"].is_null() && chunk["id"] == streamed[0]["id"]));
    for n in [0, 17] {
        assert_eq!(gateway.chat("hello", &json!({ "n": n })).status, 400);
    }
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_prompts_are_answered_in_their_order_some_at_a_time() {
    let gateway = Gateway::up().await;
    let prompts: Vec<String> = (0..100).map(|number| format!("p{number}")).collect();
    let whole = gateway.complete(&json!(prompts), &json!({})).json();
    let texts: Vec<_> =
        whole["choices"].as_array().expect("choices").iter().map(|c| text(&c["text"])).collect();
    assert_eq!(texts, prompts.iter().map(|prompt| format!("{prompt}?!")).collect::<Vec<_>>());
    let streamed = chunks(&gateway.complete(&json!(prompts), &json!({ "stream": true })));
    assert_eq!(joined(&streamed, 99, |choice| &choice["text"]), "p99?!");
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_a_stream_cancels_all_of_its_jobs() {
    let mut gateway = Gateway::up().await;
    let body = with(chat_body("wait"), &json!({ "n": 3, "stream": true }));
    let stream = block_in_place(|| Request::post(&gateway.url, "/v1/chat/completions", &body).open());
    gateway.waiting.wait_for(|count| *count == 3).await.expect("an agent");
    drop(stream);
    gateway.waiting.wait_for(|count| *count == 0).await.expect("an agent");
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_busy_is_asked_again_later() {
    let gateway = Gateway::up().await;
    let response = gateway.chat("busy", &json!({}));
    assert_eq!((response.status, &response.json()["error"]["code"]), (429, &json!("busy")));
    let streamed = gateway.chat("busy", &json!({ "n": 2, "stream": true }));
    assert_eq!(
        (streamed.status, &streamed.json()["error"]["code"]),
        (429, &json!("busy")),
        "no stream begins"
    );
    assert_eq!(streamed.header("retry-after"), Some("2"));
    // Once a stream has begun, its words are all that is left.
    let events = gateway.chat("half", &json!({ "stream": true })).events();
    let error: Value = serde_json::from_str(events.last().expect("an event")).expect("JSON");
    assert_eq!((events.len(), &error["error"]["code"]), (4, &json!("engine")), "{events:?}");
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn forms_reach_the_agent_as_they_were_written() {
    let gateway = Gateway::up().await;
    let format = |format: Value| {
        let body = json!({ "response_format": format });
        text(&gateway.chat("x", &body).json()["choices"][0]["message"]["content"])
    };
    assert_eq!(format(json!({ "type": "json_object" })), r#"{"type":"object"}"#);
    let schema = json!({ "name": "n", "strict": true, "schema": { "type": "array" } });
    assert_eq!(format(json!({ "type": "json_schema", "json_schema": schema })), r#"{"type":"array"}"#);
    assert_eq!(format(json!({ "type": "text" })), "x 0");
    // Who is told that an answer was cut throws it away, so one that the limit closed is not called cut.
    let finish = |body: Value| {
        let reply = gateway.chat("x", &with(json!({ "max_tokens": 1 }), &body)).json();
        text(&reply["choices"][0]["finish_reason"])
    };
    assert_eq!(finish(json!({ "response_format": { "type": "json_object" } })), "stop");
    assert_eq!(finish(json!({})), "length");
    let body = json!({ "response_format": { "type": "json_object" }, "max_tokens": 1, "stream": true });
    let streamed = chunks(&gateway.chat("x", &body));
    assert_eq!(joined(&streamed, 0, |choice| &choice["finish_reason"]), "stop");
    assert_eq!(joined(&streamed, 0, |choice| &choice["delta"]["content"]), r#"{"type":"object"}"#);
    for wrong in [json!({ "type": "json_schema" }), json!({ "type": "xml" })] {
        assert_eq!(gateway.chat("x", &json!({ "response_format": wrong })).status, 400);
    }
    for (body, param) in [
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "cat" }] }), "messages[1].role"),
        (json!({ "logprobs": true, "top_logprobs": 21 }), "top_logprobs"),
        (json!({ "max_completion_tokens": 0 }), "max_completion_tokens"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
    ] {
        let refused = gateway.chat("x", &body);
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(param)), "{body}");
    }
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tools_are_called_and_their_results_read() {
    let gateway = Gateway::up().await;
    let function = json!({ "name": "clock", "parameters": { "type": "object" } });
    let tools = json!([{ "type": "function", "function": function }]);
    let asked = json!({ "tools": tools, "tool_choice": "required" });
    let whole = gateway.chat("what time?", &asked).json();
    let choice = &whole["choices"][0];
    assert_eq!(
        (&choice["finish_reason"], &choice["message"]["content"]),
        (&json!("tool_calls"), &Value::Null)
    );
    let calls = choice["message"]["tool_calls"].as_array().expect("calls");
    assert_eq!((calls.len(), &calls[0]["type"]), (2, &json!("function")));
    assert_eq!(calls[0]["function"], json!({ "name": "clock", "arguments": r#"{"choice":"required"}"# }));
    assert_ne!(calls[0]["id"], calls[1]["id"]);

    let one =
        gateway.chat("what time?", &with(asked.clone(), &json!({ "parallel_tool_calls": false }))).json();
    assert_eq!(one["choices"][0]["message"]["tool_calls"].as_array().map(Vec::len), Some(1));

    let streamed = chunks(&gateway.chat("what time?", &with(asked, &json!({ "stream": true }))));
    let pieces: Vec<&Value> =
        streamed.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!((&pieces[0]["index"], &pieces[1]["index"]), (&json!(0), &json!(1)));
    assert_eq!(pieces[0]["function"], calls[0]["function"]);
    assert_eq!(joined(&streamed, 0, |choice| &choice["finish_reason"]), "tool_calls");
    assert_eq!(joined(&streamed, 0, |choice| &choice["delta"]["content"]), "");

    let turns = json!([
        { "role": "user", "content": "what time?" },
        { "role": "assistant", "content": null, "tool_calls": [calls[0]] },
        { "role": "tool", "tool_call_id": calls[0]["id"], "content": "noon" },
    ]);
    let told = gateway.chat("", &json!({ "messages": turns, "tools": tools })).json();
    assert_eq!(told["choices"][0]["message"]["content"], r#"{"choice":"required"} gave noon"#);
    let none = gateway.chat("hello", &json!({ "tools": tools, "tool_choice": "none" })).json();
    assert_eq!(none["choices"][0]["message"]["content"], "hello 0");
    assert_eq!(gateway.chat("x", &json!({ "tool_choice": "required" })).status, 400, "without any tool");
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chat_tells_how_likely_its_tokens_were() {
    let gateway = Gateway::up().await;
    let asked = json!({ "logprobs": true, "top_logprobs": 2 });
    let whole = gateway.chat("hello", &asked).json();
    let content = whole["choices"][0]["logprobs"]["content"].as_array().expect("tokens").clone();
    assert_eq!(
        (content.len(), &content[1]["token"], &content[1]["logprob"]),
        (2, &json!(" 0"), &json!(-2.0))
    );
    assert_eq!(content[0]["top_logprobs"].as_array().map(Vec::len), Some(2));
    let streamed = chunks(&gateway.chat("hello", &with(asked, &json!({ "stream": true }))));
    let told: Vec<&Value> =
        streamed.iter().filter_map(|chunk| chunk["choices"][0]["logprobs"]["content"].get(0)).collect();
    assert_eq!(told, content.iter().collect::<Vec<_>>());
    assert!(gateway.chat("hello", &json!({})).json()["choices"][0]["logprobs"].is_null());
    for wrong in [json!({ "top_logprobs": 2 }), json!({ "logprobs": true, "top_logprobs": 21 })] {
        assert_eq!(gateway.chat("hello", &wrong).status, 400);
    }
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evaluation_learns_how_likely_its_prompt_is() {
    let gateway = Gateway::up().await;
    let asked = json!({ "echo": true, "logprobs": 1, "temperature": 0, "max_tokens": 1 });
    let whole = gateway.complete(&json!([[7, 8, 9]]), &asked).json();
    let choice = &whole["choices"][0];
    assert_eq!((&choice["index"], &choice["text"]), (&json!(0), &json!("<7><8><9>3 ids")));
    let likely = &choice["logprobs"];
    assert_eq!(likely["tokens"], json!(["<7>", "<8>", "<9>", "3 ids"]));
    assert_eq!(likely["token_logprobs"], json!([null, -2.0, -3.0, -1.0]));
    assert_eq!(likely["text_offset"], json!([0, 3, 6, 9]));
    let top = likely["top_logprobs"].as_array().expect("a list");
    assert_eq!((&top[0], &top[1]), (&Value::Null, &json!({ "alt0": -0.5, "<8>": -2.0 })));

    let scored = gateway.complete(&json!("to be"), &with(asked.clone(), &json!({ "max_tokens": 0 }))).json();
    assert_eq!(scored["choices"][0]["text"], "to be");
    assert_eq!(scored["choices"][0]["logprobs"]["tokens"], json!(["to ", "be"]));
    assert!(
        scored["llamesh"]["receipt"].is_string() && scored["usage"]["completion_tokens"] == 0,
        "{scored}"
    );

    let streamed = chunks(&gateway.complete(&json!([7, 8]), &with(asked, &json!({ "stream": true }))));
    assert_eq!(joined(&streamed, 0, |choice| &choice["text"]), "<7><8>2 ids");
    assert_eq!(streamed[0]["choices"][0]["logprobs"]["tokens"], json!(["<7>", "<8>"]));
    assert_eq!(streamed[1]["choices"][0]["logprobs"]["text_offset"], json!([6]));
    gateway.node.stop().await.expect("an end in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_text_goes_on_once_or_several_times() {
    let gateway = Gateway::up().await;
    let whole = gateway.complete(&json!(["a", "b"]), &json!({ "n": 2, "logprobs": null })).json();
    let texts: Vec<String> =
        whole["choices"].as_array().expect("choices").iter().map(|choice| text(&choice["text"])).collect();
    assert_eq!(texts, ["a?!", "a?!", "b?!", "b?!"]);
    assert_eq!(
        (&whole["object"], &whole["usage"]["completion_tokens"]),
        (&json!("text_completion"), &json!(8))
    );
    assert!(whole["choices"][3]["index"] == 3 && whole["choices"][0]["logprobs"].is_null(), "{whole}");
    let echo = gateway.complete(&json!("a"), &json!({ "echo": true, "max_tokens": 1 })).json();
    assert_eq!(
        (&echo["choices"][0]["text"], &echo["usage"]["completion_tokens"]),
        (&json!("aa?"), &json!(1))
    );
    let streamed = chunks(&gateway.complete(&json!("a"), &json!({ "stream": true })));
    assert_eq!(joined(&streamed, 0, |choice| &choice["text"]), "a?!");
    assert_eq!(joined(&streamed, 0, |choice| &choice["finish_reason"]), "stop");
    let wrong = [
        (json!([]), json!({})),
        (json!("a"), json!({ "max_tokens": 0 })),
        (json!("a"), json!({ "suffix": "b" })),
        (json!("a"), json!({ "logprobs": 21 })),
        (json!([1]), json!({ "model": "auto" })),
        (json!(vec!["a"; 65]), json!({ "n": 2 })),
    ];
    for (prompt, more) in wrong {
        assert_eq!(gateway.complete(&prompt, &more).status, 400, "{prompt} {more}");
    }
    gateway.node.stop().await.expect("an end in order");
}
