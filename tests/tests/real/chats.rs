//! Chats, as the file's template writes them.

use crate::golden::Golden;
use pith_runtime::{ChatTemplate, Message};

pub fn prompts_are_the_same(golden: &Golden) {
    let (converted, _) = golden.carried();
    let model = converted.open();
    let tokenizer = model.tokenizer().unwrap();
    let text = |id: Option<u32>| tokenizer.decode(&[id.unwrap()], false).unwrap();
    let (bos, eos) = (text(model.config().bos), text(model.config().eos.first().copied()));
    let source = model.metadata().chat_template.as_ref().unwrap();
    let template = ChatTemplate::new(source, &bos, &eos).unwrap();
    for chat in &golden.chat {
        let messages: Vec<Message> =
            chat.messages.iter().map(|message| Message::new(&message["role"], &message["content"])).collect();
        assert_eq!(template.render(&messages, true).unwrap(), chat.text);
        assert_eq!(template.encode(tokenizer, &messages, true).unwrap(), chat.ids, "{:?}", chat.text);
    }
}
