//! Templates as models bring them, and as an attacker would.

use super::*;

/// The template in the default model's file.
const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

fn chat(messages: &[(&str, &str)]) -> Chat {
    Chat {
        messages: messages.iter().map(|(role, content)| Message::new(*role, *content)).collect(),
        ..Chat::default()
    }
}

fn render(template: &str, chat: &Chat) -> Result<String, TemplateError> {
    ChatTemplate::new(Some(template), "<s>", "</s>")?.render(chat)
}

#[test]
fn the_template_decides_about_the_system_prompt() {
    let without = render(SMOLLM2, &chat(&[("user", "Hi")])).unwrap();
    assert_eq!(
        without,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    let with = render(SMOLLM2, &chat(&[("system", "Be brief."), ("user", "Hi")])).unwrap();
    assert_eq!(
        with,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn a_file_without_a_template_gets_chatml() {
    let template = ChatTemplate::new(None, "", "").unwrap();
    let text = template.render(&chat(&[("system", "A"), ("user", "B")])).unwrap();
    assert_eq!(
        text,
        "<|im_start|>system\nA<|im_end|>\n<|im_start|>user\nB<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn whitespace_methods_and_tokens_are_as_in_python() {
    let source = "{{ bos_token }}\n  {% if true %}\n{{ messages[0].content.strip().upper() }}\n  {% endif %}\n{{ eos_token }}\n";
    assert_eq!(render(source, &chat(&[("user", "  hi ")])).unwrap(), "<s>\nHI\n</s>");
    let source = "{% for m in messages %}{% if m['role'] == 'x' %}{% continue %}{% endif %}{{ m.content.split('</think>')[-1].lstrip('\\n') }}{% endfor %}";
    assert_eq!(render(source, &chat(&[("x", "no"), ("user", "a</think>\nb")])).unwrap(), "b");
    let source = "{% if tools is not none %}T{% endif %}{% if messages[0].name is defined %}N{% endif %}ok";
    assert_eq!(render(source, &chat(&[("user", "")])).unwrap(), "ok");
}

#[test]
fn json_is_pythons() {
    let source = "{{ messages[0] | tojson }}{{ {'a': [1, '<é>']} | tojson(indent=2) }}";
    let text = render(source, &chat(&[("user", "<b>\"é\"")])).unwrap();
    assert_eq!(
        text,
        "{\"role\": \"user\", \"content\": \"<b>\\\"é\\\"\"}{\n  \"a\": [\n    1,\n    \"<é>\"\n  ]\n}"
    );
}

#[test]
fn the_clock_is_an_input() {
    let source = "{{ strftime_now('%d %b %Y') }}";
    let at = |now| render(source, &Chat { now, ..Chat::default() }).unwrap();
    assert_eq!(at(0), "01 Jan 1970");
    assert_eq!(at(1_764_000_000), "24 Nov 2025");
}

#[test]
fn a_template_can_refuse_with_its_own_words() {
    let source = "{{ raise_exception('roles must alternate') }}";
    let error = render(source, &chat(&[])).unwrap_err();
    assert!(matches!(&error, TemplateError::Refused { why } if why == "roles must alternate"), "{error}");
    assert!(matches!(render("{% if %}", &chat(&[])), Err(TemplateError::Syntax { .. })));
}

#[test]
fn hostile_templates_come_to_an_end() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ '' }}{% endfor %}{% endfor %}";
    assert!(matches!(render(endless, &chat(&[])), Err(TemplateError::Refused { .. })));
    let verbose = "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
    assert!(matches!(render(verbose, &chat(&[])), Err(TemplateError::TooLong)));
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(matches!(render(deep, &chat(&[])), Err(TemplateError::Refused { .. })));
}
