//! Orders in the engine's terms, and what the engine brings in the wire's.
//!
//! A replay uses the same functions, so that both read the same prompt and obey the same constraint.

use inference::tokens::Vocabulary;
use inference::{Chat, Engine, FinishReason, GenerateError, Prompt, PromptError, tools};
use protocol::error::Feature;
use protocol::score::Alternative;
use protocol::{ChatMessage, Constraint, Finish, Input, JobError, Logprobs, Role, Scores, ToolChoice};

/// The prompt of an input, as the engine takes it. Replay uses it too, so that both read the same.
///
/// # Errors
/// [`JobError::Unsupported`] for JSON.
pub fn prompt(input: &Input, template_time: u64) -> Result<Prompt, JobError> {
    Ok(match input {
        Input::Chat(chat) => Prompt::Chat(Chat {
            messages: chat.messages.iter().map(message).collect(),
            // Tools that must not be called are not told.
            tools: match chat.tool_choice {
                ToolChoice::None => Vec::new(),
                _ => chat.tools.iter().map(tool).collect(),
            },
            now: i64::try_from(template_time).unwrap_or_default(),
        }),
        Input::Text(text) => Prompt::Text(text.clone()),
        Input::Tokens(ids) => Prompt::Tokens(ids.clone()),
        Input::Json(_) => return Err(JobError::Unsupported { feature: Feature::Input }),
    })
}

/// The engine's sampling of an order's.
pub fn sampling(order: &protocol::Sampling) -> inference::Sampling {
    inference::Sampling {
        max_tokens: order.max_tokens,
        temperature: order.temperature,
        top_p: order.top_p,
        top_k: order.top_k,
        min_p: order.min_p,
        repeat_penalty: order.repeat_penalty,
        frequency_penalty: order.frequency_penalty,
        presence_penalty: order.presence_penalty,
        stop: order.stop.clone(),
        seed: order.seed,
        choice: order.choice,
    }
}

/// Why an answer ended, as a receipt says it.
pub fn finish(reason: FinishReason) -> Finish {
    match reason {
        FinishReason::EndOfText => Finish::EndOfText,
        FinishReason::Length => Finish::Length,
        FinishReason::Stop => Finish::Stop,
    }
}

/// What the answer must be: what the order says, or a call of a tool where the chat demands one, in the model's own
/// notation; either of them where it may call one and has a schema for all else.
///
/// # Errors
/// [`JobError::Invalid`] where a chat demands a call and the order something else, or its tools are out of bounds.
pub fn constraint(
    engine: &dyn Engine,
    input: &Input,
    ordered: Option<&Constraint>,
) -> Result<Option<inference::Constraint>, JobError> {
    let call = match input {
        Input::Chat(chat) => call(engine, chat)?,
        Input::Json(_) | Input::Text(_) | Input::Tokens(_) => None,
    };
    match (call, ordered) {
        (Some(_), Some(_)) => Err(JobError::invalid(
            "constraint",
            "and a required tool call exclude each other: give one of them",
        )),
        (Some(grammar), None) => Ok(Some(inference::Constraint::Grammar(grammar))),
        (None, Some(Constraint::JsonSchema(schema))) if may_call(input) => {
            calls_or(engine, input, schema).map(inference::Constraint::Grammar).map(Some)
        }
        (None, ordered) => Ok(ordered.map(|constraint| match constraint {
            Constraint::Choices(choices) => inference::Constraint::Choices(choices.clone()),
            Constraint::Grammar(grammar) => inference::Constraint::Grammar(grammar.clone()),
            Constraint::JsonSchema(schema) => inference::Constraint::JsonSchema(schema.clone()),
            Constraint::Regex(regex) => inference::Constraint::Regex(regex.clone()),
        })),
    }
}

/// The grammar of a call that a chat demands.
fn call(engine: &dyn Engine, chat: &protocol::Chat) -> Result<Option<String>, JobError> {
    let choice = match &chat.tool_choice {
        ToolChoice::Auto => tools::ToolChoice::Auto,
        ToolChoice::Named(name) => tools::ToolChoice::Named(name.clone()),
        ToolChoice::None => tools::ToolChoice::None,
        ToolChoice::Required => tools::ToolChoice::Required,
    };
    let told: Vec<_> = chat.tools.iter().map(tool).collect();
    tools::grammar(&told, &choice, engine.template().call_syntax())
        .map_err(|error| JobError::invalid("tools", &error.to_string()))
}

fn may_call(input: &Input) -> bool {
    matches!(input, Input::Chat(chat) if chat.tool_choice == ToolChoice::Auto && !chat.tools.is_empty())
}

/// The grammar of calls that a chat allows, and of an answer that a schema accepts.
fn calls_or(engine: &dyn Engine, input: &Input, schema: &str) -> Result<String, JobError> {
    let schema = inference::Constraint::schema(schema);
    let schema = schema.map_err(|error| JobError::invalid("constraint", &error.to_string()))?;
    let told: Vec<_> = match input {
        Input::Chat(chat) => chat.tools.iter().map(tool).collect(),
        Input::Json(_) | Input::Text(_) | Input::Tokens(_) => Vec::new(),
    };
    tools::grammar_or(&told, &schema, engine.template().call_syntax())
        .map_err(|error| JobError::invalid("tools", &error.to_string()))
}

fn tool(tool: &protocol::Tool) -> tools::Tool {
    let protocol::Tool { name, description, parameters } = tool.clone();
    tools::Tool { name, description, parameters }
}

/// How likely a token was, with the texts of those that could have come instead.
pub fn logprobs(vocabulary: &Vocabulary, found: &inference::Logprobs) -> Logprobs {
    let alternative =
        |&(id, logprob): &(u32, f32)| Alternative { id, text: vocabulary.decode(&[id]), logprob };
    Logprobs { logprob: found.logprob, top: found.top.iter().map(alternative).collect() }
}

/// The answer of a scoring: `found` has all tokens but the first.
pub fn scores(vocabulary: &Vocabulary, tokens: &[u32], found: &[inference::Logprobs]) -> Scores {
    let found: Vec<_> = found.iter().map(|found| logprobs(vocabulary, found)).collect();
    Scores {
        tokens: tokens.to_vec(),
        texts: tokens.iter().map(|&id| vocabulary.decode(&[id])).collect(),
        logprobs: std::iter::once(None).chain(found.iter().map(|found| Some(found.logprob))).collect(),
        top: std::iter::once(None).chain(found.into_iter().map(|found| Some(found.top))).collect(),
    }
}

fn message(message: &ChatMessage) -> inference::Message {
    let role = match message.role {
        Role::Assistant => "assistant",
        Role::System => "system",
        Role::Tool => "tool",
        Role::User => "user",
    };
    let call = |call: &protocol::ToolCall| {
        let protocol::ToolCall { id, name, arguments } = call.clone();
        tools::ToolCall { id, name, arguments }
    };
    inference::Message {
        name: message.name.clone(),
        tool_calls: message.tool_calls.iter().map(call).collect(),
        tool_call_id: message.tool_call_id.clone(),
        ..inference::Message::new(role, &message.content)
    }
}

/// Why a prompt cannot be read.
pub fn refusal(error: &PromptError) -> JobError {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    match error {
        PromptError::TooLong { tokens, context } => {
            JobError::ContextExceeded { tokens: count(*tokens), context: count(*context) }
        }
        other => JobError::invalid("input", &other.to_string()),
    }
}

/// Why an answer cannot be made.
pub fn failure(error: GenerateError) -> JobError {
    match error {
        GenerateError::Constraint(error) => JobError::invalid("constraint", &error.to_string()),
        GenerateError::Prompt(error) => refusal(&error),
        GenerateError::Sampling(error) => JobError::invalid("sampling", &error.to_string()),
        GenerateError::Inherited { index } => JobError::Inherited { index },
        GenerateError::Forward(_) | GenerateError::Panicked { .. } => JobError::Engine,
    }
}
