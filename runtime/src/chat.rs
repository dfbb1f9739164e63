//! Chat templates: from messages to a prompt, with the Jinja template that comes with the model.

use crate::date::strftime;
use crate::error::RuntimeError;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, context};
use minijinja_contrib::pycompat::unknown_method_callback;
use pith_tokenizer::Tokenizer;
use serde::Serialize;
use std::io::{self, Write};
use std::time::SystemTime;

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// "system", "user" or "assistant".
    pub role: String,
    /// Text of the message.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        Self { role: role.into(), content: content.into() }
    }
}

/// Most steps of a template: about a second. Real ones take some hundreds per message.
const FUEL: u64 = 4_000_000;

/// Most bytes of a prompt besides the messages, which may each appear a few times.
const OUTPUT_BYTES: usize = 1 << 20;
const OUTPUT_REPEATS: usize = 4;

/// A compiled chat template.
///
/// It provides what `transformers` provides to templates: `messages`, `add_generation_prompt`,
/// `bos_token`, `eos_token`, `raise_exception`, `strftime_now` (UTC here), `tojson`, Python's
/// string methods, `break` and `continue`, and the `generation` tag, which marks text without
/// changing it. Steps and output are limited, so that a hostile template ends with an error.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
}

impl ChatTemplate {
    /// Compiles `source`. `bos_token` and `eos_token` are the texts of those tokens.
    pub fn new(source: &str, bos_token: &str, eos_token: &str) -> Result<Self, RuntimeError> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.expect("the delimiters are Jinja's own"));
        environment.set_fuel(Some(FUEL));
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", to_json);
        environment.add_test("iterable", is_iterable);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |format: String| strftime(&format, SystemTime::now()));
        environment.add_template_owned(NAME, without_generation_tags(source)).map_err(template_error)?;
        let mut template = Self { environment };
        template.set_variable("bos_token", bos_token);
        template.set_variable("eos_token", eos_token);
        // A template without tools or documents finds `None`, as in transformers.
        template.set_variable("tools", ());
        template.set_variable("documents", ());
        Ok(template)
    }

    /// Sets a variable that the template may read, such as `enable_thinking` or `tools`.
    pub fn set_variable(&mut self, name: &str, value: impl Serialize) {
        self.environment.add_global(name.to_string(), Value::from(Serde(value)));
    }

    /// The ids of [`Self::render`]'s prompt. Special tokens that a message spells are text: only
    /// the template's own are tokens.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<Vec<u32>, RuntimeError> {
        let guarded = |message: &Message| Message::new(&message.role, tokenizer.guard(&message.content));
        let messages: Vec<Message> = messages.iter().map(guarded).collect();
        Ok(tokenizer.encode_guarded(&self.render(&messages, add_generation_prompt)?)?)
    }

    /// The prompt for these messages; with `add_generation_prompt` it ends where the assistant's
    /// reply begins.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, RuntimeError> {
        let content_bytes: usize =
            messages.iter().map(|message| message.role.len() + message.content.len()).sum();
        let limit = OUTPUT_BYTES + OUTPUT_REPEATS * content_bytes;
        let mut output = Limited { bytes: Vec::new(), limit, exceeded: false };
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => &message.role, content => &message.content })
            .collect();
        let variables = context! {
            messages => Value::from(messages.as_slice()),
            add_generation_prompt,
        };
        let result = template.render_captured_to(variables, &mut output).map(|_| ());
        if output.exceeded {
            return Err(RuntimeError::Template {
                line: 0,
                message: format!("the prompt is longer than {limit} bytes"),
            });
        }
        result.map_err(template_error)?;
        Ok(String::from_utf8(output.bytes).expect("templates write text"))
    }
}

const NAME: &str = "chat";

fn template_error(error: Error) -> RuntimeError {
    let message = match error.kind() {
        ErrorKind::OutOfFuel => "it takes too many steps".into(),
        kind => error.detail().map_or_else(|| kind.to_string(), str::to_string),
    };
    RuntimeError::Template { line: error.line().unwrap_or(0), message }
}

/// A writer that accepts bytes up to a limit.
struct Limited {
    bytes: Vec<u8>,
    limit: usize,
    exceeded: bool,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.limit - self.bytes.len() {
            self.exceeded = true;
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Jinja's test: what Python can iterate over. The undefined value is an empty list, `None` is not.
fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Bytes, Iterable, Map, Seq, String, Undefined};
    matches!(value.kind(), Undefined | String | Bytes | Seq | Map | Iterable)
}

/// Python's `json.dumps`: a space after commas and colons, no HTML escapes; `indent` as in Python.
fn to_json(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    // Accepted and ignored: text is never escaped to ASCII.
    let _: Option<Value> = options.get("ensure_ascii")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    let result = match indent {
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, Spaced)),
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut out, formatter))
        }
    };
    result.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    Ok(String::from_utf8(out).expect("serde_json writes text"))
}

struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}

/// Replaces the `generation` and `endgeneration` tags, which mark the assistant's text for
/// training, with a condition that always holds. White space around them is then treated the same.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(begin) = rest.find("{%") {
        let (before, tag) = rest.split_at(begin);
        out.push_str(before);
        let Some(end) = tag.find("%}") else {
            rest = tag;
            break;
        };
        let (tag, after) = tag.split_at(end);
        match tag[2..].trim_matches(['-', '+']).trim() {
            "generation" => out.push_str(&tag.replace("generation", "if true")),
            "endgeneration" => out.push_str(&tag.replace("endgeneration", "endif")),
            _ => out.push_str(tag),
        }
        rest = after;
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation() -> Vec<Message> {
        vec![
            Message::new("system", " Be brief. "),
            Message::new("user", "What is \"1+1\" & why <b>?"),
            Message::new("assistant", "<think>\neasy\n</think>\n\nTwo."),
            Message::new("user", "Und 2+2?"),
        ]
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, String> {
        ChatTemplate::new(source, "<s>", "</s>")
            .and_then(|template| template.render(messages, true))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn headers_with_a_date_and_a_trimmed_content() {
        // In the style of Llama 3: slices, `is defined`, no tools, string functions by filter.
        let source = r#"{{- bos_token }}
{%- if not date is defined %}
    {%- if strftime_now is defined %}
        {%- set date = strftime_now("%Y") %}
    {%- else %}
        {%- set date = "never" %}
    {%- endif %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
{{- "<|head|>system<|end|>\n\n" }}
{%- if tools is not none %}
    {{- "Tools" }}
{%- endif %}
{{- date | length }}{{ system }}{{- "<|eot|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or 'tool_calls' in message) %}
        {{- '<|head|>' + message['role'] + '<|end|>\n\n'+ message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant<|end|>\n\n' }}
{%- endif %}
"#;
        let expected = "<s><|head|>system<|end|>\n\n4Be brief.<|eot|>\
            <|head|>user<|end|>\n\nWhat is \"1+1\" & why <b>?<|eot|>\
            <|head|>assistant<|end|>\n\n<think>\neasy\n</think>\n\nTwo.<|eot|>\
            <|head|>user<|end|>\n\nUnd 2+2?<|eot|><|head|>assistant<|end|>\n\n";
        assert_eq!(render(source, &conversation()).unwrap(), expected);
    }

    #[test]
    fn thoughts_of_earlier_turns_are_cut() {
        // In the style of Qwen 3: a reversed list, a namespace, split and strip, a switch.
        let source = r#"
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in message.content %}
            {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
            {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;
        let body = "<|im_start|>system\n Be brief. <|im_end|>\n\
            <|im_start|>user\nWhat is \"1+1\" & why <b>?<|im_end|>\n\
            <|im_start|>assistant\nTwo.<|im_end|>\n\
            <|im_start|>user\nUnd 2+2?<|im_end|>\n<|im_start|>assistant\n";
        let mut template = ChatTemplate::new(source, "", "").unwrap();
        assert_eq!(template.render(&conversation(), true).unwrap(), body);
        template.set_variable("enable_thinking", false);
        let expected = format!("{body}<think>\n\n</think>\n\n");
        assert_eq!(template.render(&conversation(), true).unwrap(), expected);
        let last = &conversation()[..3];
        let found = template.render(last, false).unwrap();
        assert!(found.ends_with("assistant\n<think>\neasy\n</think>\n\nTwo.<|im_end|>\n"), "{found}");
    }

    #[test]
    fn turns_must_alternate() {
        // In the style of Gemma, which has no system role.
        let source = r#"{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate') }}
{% endif %}
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}
{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}
{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"#;
        let error = render(source, &conversation()).unwrap_err();
        assert_eq!(error, "chat template, line 1: System role not supported");
        let twice = [Message::new("user", "a"), Message::new("user", "b")];
        assert_eq!(
            render(source, &twice).unwrap_err(),
            "chat template, line 4: Conversation roles must alternate"
        );
        let expected = "<s><start_of_turn>user\na<end_of_turn>\n<start_of_turn>model\n";
        // A line feed after a block is removed, one after an expression is not.
        assert_eq!(render(source, &twice[..1]).unwrap(), expected);
    }

    #[test]
    fn blocks_take_the_line_they_stand_on() {
        // In the style of Phi-3: blocks without minus signs, trimmed by the environment.
        let source = "{% for message in messages %}\n  {% if message['role'] == 'user' %}\n{{'<|user|>\n' + message['content'] + '<|end|>\n'}}\n  {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}";
        let messages = [Message::new("user", "Hi")];
        assert_eq!(render(source, &messages).unwrap(), "<|user|>\nHi<|end|>\n\n<|assistant|>\n");
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        assert_eq!(template.render(&messages, false).unwrap(), "<|user|>\nHi<|end|>\n\n</s>");
    }

    #[test]
    fn system_prompts_move_into_the_last_user_turn() {
        // In the style of Mistral: filters over attributes, break, JSON as Python writes it.
        let source = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}{{- "[TOOLS]" }}{%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message.strip() + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + (message["content"]|trim).split("</think>")[-1].strip() + eos_token}}
    {%- else %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{{- {"content": [1, "é<"], "b": {}} | tojson }}"#;
        let expected = "<s>[INST] What is \"1+1\" & why <b>?[/INST] Two.</s>\
            [INST] Be brief.\n\nUnd 2+2?[/INST]{\"b\": {}, \"content\": [1, \"é<\"]}";
        assert_eq!(render(source, &conversation()).unwrap(), expected);
    }

    #[test]
    fn macros_and_generation_tags_leave_the_text_alone() {
        // In the style of SmolLM3.
        let source = "{%- macro turn(role, text) -%}\n<|{{ role }}|>{{ text }}\n{%- endmacro -%}\n{%- for message in messages -%}\n{%- if message.role == 'assistant' -%}\n{%- generation -%}\n{{ turn('a', 'x') }}\n{%- endgeneration -%}\n{%- else -%}{{ turn(message.role, message.content | length) }}\n{%- endif -%}\n{%- endfor -%}";
        assert_eq!(render(source, &conversation()).unwrap(), "<|system|>11<|user|>24<|a|>x<|user|>8");
        assert_eq!(without_generation_tags("{% generation"), "{% generation");
        assert_eq!(without_generation_tags("a{%- generation %}b{% x %}"), "a{%- if true %}b{% x %}");
    }

    #[test]
    fn special_tokens_that_a_message_spells_are_text() {
        let tokens =
            ["<unk>", "<|im_end|>", "<", "|", "i", "m", "_", "e", "n", "d", ">", "x"].map(String::from);
        let vocab = pith_tokenizer::source::GgufVocab {
            model: "llama",
            tokens: &tokens,
            scores: &[0.0; 12],
            token_types: &[2, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
            add_space_prefix: Some(false),
            ..Default::default()
        };
        let tokenizer = pith_tokenizer::source::from_gguf(&vocab).unwrap();
        let source = "{% for message in messages %}x{{ message.content | trim }}<|im_end|>{% endfor %}";
        let template = ChatTemplate::new(source, "", "").unwrap();
        let messages = [Message::new("user", " <|im_end|> ")];
        let spelled = [2, 3, 4, 5, 6, 7, 8, 9, 3, 10];
        let ids = template.encode(&tokenizer, &messages, true).unwrap();
        assert_eq!(ids, [&[11], &spelled[..], &[1]].concat());
        assert_eq!(template.render(&messages, true).unwrap(), "x<|im_end|><|im_end|>");
    }

    #[test]
    fn what_is_missing_is_no_list() {
        let source = "{{ tools is iterable }} {{ nothing is iterable }} {{ messages is iterable }} \
            {{ 'a' is iterable }} {{ 1 is iterable }}{% if tools is iterable and tools | length > 0 %}T{% endif %}";
        assert_eq!(render(source, &[]).unwrap(), "False True True True False");
        let mut template = ChatTemplate::new(source, "", "").unwrap();
        template.set_variable("tools", [1]);
        assert!(template.render(&[], true).unwrap().ends_with("FalseT"));
    }

    #[test]
    fn mistakes_name_their_line() {
        let error = render("fine\n{% if %}", &[]).unwrap_err();
        assert!(error.starts_with("chat template, line 2: "), "{error}");
        let error = render("\n\n{{ messages[0].content.nothing() }}", &conversation()).unwrap_err();
        assert!(error.starts_with("chat template, line 3: ") && error.contains("nothing"), "{error}");
    }

    #[test]
    fn hostile_templates_end() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let error = render(endless, &[]).unwrap_err();
        assert!(error.contains("line 1: it takes too many steps"), "{error}");
        let error = render("{{ 'ab' * 10000000 }}", &[]).unwrap_err();
        assert!(error.contains(&format!("the prompt is longer than {OUTPUT_BYTES} bytes")), "{error}");
        let error = render("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", &[]).unwrap_err();
        assert!(error.starts_with("chat template, line 1: "), "{error}");
        let error = render(r#"{% include "chat" %}"#, &[]).unwrap_err();
        assert!(error.starts_with("chat template, line 1: "), "{error}");
    }
}
