/* The families of chat templates, one row each. See chat.h.
 *
 * Sources: the chat_template of each model's tokenizer_config.json on Hugging Face, rendered by transformers for
 * tests/golden/chat. A family with more needs stands before one with fewer. */
#include <string.h>
#include <strings.h>

#include "model/chat.h"

#define CHATML_BLOCKS                                                                                                  \
    .system_before = "<|im_start|>system\n", .system_after = "<|im_end|>\n", .user_before = "<|im_start|>user\n",      \
    .user_after = "<|im_end|>\n", .answer_before = "<|im_start|>assistant\n", .answer_after = "<|im_end|>\n",          \
    .ends = {"<|im_end|>"}
#define LLAMA3_BLOCKS                                                                                                  \
    .user_before = "<|start_header_id|>user<|end_header_id|>\n\n", .user_after = "<|eot_id|>",                         \
    .answer_before = "<|start_header_id|>assistant<|end_header_id|>\n\n", .answer_after = "<|eot_id|>",                \
    .prompt = "<|start_header_id|>assistant<|end_header_id|>\n\n",                                                     \
    .trims = TMS_CHAT_TRIM_SYSTEM | TMS_CHAT_TRIM_USER | TMS_CHAT_TRIM_ANSWER, .ends = {"<|eot_id|>", "<|eom_id|>"}
#define LLAMA31_SYSTEM                                                                                                 \
    "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: "
#define DEEPSEEK_BLOCKS                                                                                                \
    .begin = "{bos}", .system_before = "", .system_after = "", .user_before = "<｜User｜>", .user_after = "",          \
    .answer_before = "<｜Assistant｜>", .answer_after = "<｜end▁of▁sentence｜>", .ends = {"<｜end▁of▁sentence｜>"}

static const struct tms_chat_family families[] = {
    /* ---- ChatML and what grew from it ---- */
    {
        .name = "qwen3",
        .models = "Qwen3",
        .needs = {"<|im_start|>", "<|im_end|>", "last_query_index", "split('</think>')[-1].lstrip('\n')"},
        .lacks = {"<|im_start|>assistant\n<think>\n'", "trim", "bos_token", "You are a", "You are Q",
                  "<think></think>"},
        .begin = "",
        CHATML_BLOCKS,
        .prompt = "<|im_start|>assistant\n",
        .thinking = TMS_CHAT_DROP_AND_LINES,
    },
    {
        .name = "qwen3-thinking",
        .models = "Qwen3 Thinking 2507",
        .needs = {"<|im_start|>assistant\n<think>\n'", "<|im_end|>", "last_query_index",
                  "split('</think>')[-1].lstrip('\n')"},
        .lacks = {"trim", "bos_token", "You are a", "You are Q", "<think></think>"},
        .begin = "",
        CHATML_BLOCKS,
        .prompt = "<|im_start|>assistant\n<think>\n",
        .thinking = TMS_CHAT_DROP_AND_LINES,
    },
    {
        .name = "qwq",
        .models = "QwQ",
        .needs = {"<|im_start|>assistant\n<think>\n'", "<|im_end|>",
                  "message.content.split('</think>')[-1].lstrip('\n')"},
        .lacks = {"last_query_index", "trim", "bos_token", "You are a", "You are Q"},
        .begin = "",
        CHATML_BLOCKS,
        .prompt = "<|im_start|>assistant\n<think>\n",
        .thinking = TMS_CHAT_DROP_ALL_LINES,
    },
    {
        .name = "phi4",
        .models = "Phi-4",
        .needs = {"<|im_start|>", "<|im_sep|>", "<|im_end|>"},
        .lacks = {"think", "Thought"},
        .begin = "",
        .system_before = "<|im_start|>system<|im_sep|>",
        .system_after = "<|im_end|>",
        .user_before = "<|im_start|>user<|im_sep|>",
        .user_after = "<|im_end|>",
        .answer_before = "<|im_start|>assistant<|im_sep|>",
        .answer_after = "<|im_end|>",
        .prompt = "<|im_start|>assistant<|im_sep|>",
        .ends = {"<|im_end|>"},
    },
    {
        .name = "qwen3-coder",
        .models = "Qwen3-Coder",
        .needs = {"<|im_start|>", "<|im_end|>", "interact with a computer to solve tasks",
                  "<function=example_function_name>"},
        .lacks = {"think", "bos_token"},
        .begin = "",
        CHATML_BLOCKS,
        .prompt = "<|im_start|>assistant\n",
    },
    {
        .name = "chatml",
        .models = "Qwen2, Qwen2.5, SmolLM, OpenHermes and many others",
        .needs = {"<|im_start|>", "<|im_end|>"},
        .lacks = {"think", "trim", "strip(", "<|im_sep|>", "<end_of_utterance>", "<|im_user|>", "pydantic"},
        .begin = "{bos}",
        CHATML_BLOCKS,
        .prompt = "<|im_start|>assistant\n",
        .default_in_text = true,
    },
    /* ---- Llama ---- */
    {
        .name = "llama3.2",
        .models = "Llama 3.2",
        .needs = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023", "strftime_now", "<|eot_id|>"},
        .begin = "{bos}",
        .system_before = LLAMA31_SYSTEM "{date}\n\n",
        .system_after = "<|eot_id|>",
        .no_system = LLAMA31_SYSTEM "{date}\n\n<|eot_id|>",
        LLAMA3_BLOCKS,
    },
    {
        .name = "llama3.1",
        .models = "Llama 3.1, 3.3",
        .needs = {"<|start_header_id|>", "Cutting Knowledge Date: December 2023", "26 Jul 2024", "<|eot_id|>"},
        .lacks = {"strftime_now"},
        .begin = "{bos}",
        .system_before = LLAMA31_SYSTEM "26 Jul 2024\n\n",
        .system_after = "<|eot_id|>",
        .no_system = LLAMA31_SYSTEM "26 Jul 2024\n\n<|eot_id|>",
        LLAMA3_BLOCKS,
    },
    {
        .name = "llama3",
        .models = "Llama 3",
        .needs = {"<|start_header_id|>", "<|end_header_id|>\n\n", "<|eot_id|>", "trim"},
        .lacks = {"Cutting Knowledge", "You are", "function", "tool", "think"},
        .begin = "{bos}",
        .system_before = "<|start_header_id|>system<|end_header_id|>\n\n",
        .system_after = "<|eot_id|>",
        LLAMA3_BLOCKS,
    },
    {
        .name = "llama2",
        .models = "Llama 2 Chat",
        .needs = {"bos_token + '[INST] ' + content.strip() + ' [/INST]'", "<<SYS>>\n",
                  "content.strip() + ' ' + eos_token"},
        .lacks = {"You are", "Vous", "system_message = 'A"},
        .begin = "",
        .place = TMS_CHAT_IN_FIRST,
        .system_before = "<<SYS>>\n",
        .system_after = "\n<</SYS>>\n\n",
        .user_before = "{bos}[INST] ",
        .user_after = " [/INST]",
        .answer_before = " ",
        .answer_after = " {eos}",
        .prompt = "",
        .trims = TMS_CHAT_TRIM_JOINED | TMS_CHAT_TRIM_ANSWER,
    },
    /* ---- Mistral ---- */
    {
        .name = "mistral-v7-tekken",
        .models = "Mistral Small 3, Devstral",
        .needs = {"'[SYSTEM_PROMPT]'", "'[INST]'", "default_system_message"},
        .lacks = {"[THINK]"},
        .begin = "{bos}",
        .system_before = "[SYSTEM_PROMPT]",
        .system_after = "[/SYSTEM_PROMPT]",
        .user_before = "[INST]",
        .user_after = "[/INST]",
        .answer_before = "",
        .answer_after = "{eos}",
        .prompt = "",
        .default_not_known = true,
    },
    {
        .name = "mistral-v7",
        .models = "Mistral Large 2411",
        .needs = {"'[SYSTEM_PROMPT] ' +", "'[INST] ' + message['content'] + '[/INST]'"},
        .begin = "{bos}",
        .system_before = "[SYSTEM_PROMPT] ",
        .system_after = "[/SYSTEM_PROMPT]",
        .user_before = "[INST] ",
        .user_after = "[/INST]",
        .answer_before = " ",
        .answer_after = "{eos}",
        .prompt = "",
    },
    {
        .name = "mistral-v3-tekken",
        .models = "Mistral Nemo",
        .needs = {"'[INST]' + message['content'] + '[/INST]'", "[AVAILABLE_TOOLS]", "loop.last and system_message"},
        .lacks = {"[SYSTEM_PROMPT]"},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_LAST,
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "[INST]",
        .user_after = "[/INST]",
        .answer_before = "",
        .answer_after = "{eos}",
        .prompt = "",
    },
    {
        .name = "mistral-v3",
        .models = "Mistral 7B v0.3, Mistral Large 2407",
        .needs = {"'[INST] ' + message['content'] + '[/INST]'", "[AVAILABLE_TOOLS]", "loop.last and system_message",
                  "trim + eos_token"},
        .lacks = {"[SYSTEM_PROMPT]"},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_LAST,
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "[INST] ",
        .user_after = "[/INST]",
        .answer_before = " ",
        .answer_after = "{eos}",
        .prompt = "",
        .trims = TMS_CHAT_TRIM_ANSWER,
    },
    {
        .name = "mistral-v1",
        .models = "Mistral 7B v0.2, Mixtral 8x7B",
        .needs = {"' [INST] ' + message['content'] + ' [/INST]'", "' [INST] ' + system_message + '\n\n'"},
        .lacks = {"trim", "strip("},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_FIRST,
        .system_before = "",
        .system_after = "\n\n",
        .user_before = " [INST] ",
        .user_after = " [/INST]",
        .answer_before = " ",
        .answer_after = "{eos}",
        .prompt = "",
    },
    {
        .name = "mistral-v0.1",
        .models = "Mistral 7B v0.1",
        .needs = {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token + ' '"},
        .lacks = {"system_message", "trim", "strip(", "<<SYS>>", "bos_token + '[INST]"},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_FIRST, /* its template knows no system text: put where version 1 puts it */
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "[INST] ",
        .user_after = " [/INST]",
        .answer_before = "",
        .answer_after = "{eos} ",
        .prompt = "",
    },
    {
        .name = "mistral-v0.2",
        .models = "Mistral 7B v0.2 (older template)",
        .needs = {"'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token}}"},
        .lacks = {"system_message", "trim", "strip(", "<<SYS>>", "bos_token + '[INST]"},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_FIRST, /* as above */
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "[INST] ",
        .user_after = " [/INST]",
        .answer_before = "",
        .answer_after = "{eos}",
        .prompt = "",
    },
    /* ---- Gemma ---- */
    {
        .name = "gemma",
        .models = "Gemma 1, 2, 3",
        .needs = {"<start_of_turn>", "<end_of_turn>\n", "trim", "'model'"},
        .begin = "{bos}",
        .place = TMS_CHAT_IN_FIRST, /* as Gemma 3 has it; the templates of 1 and 2 know no system text */
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "<start_of_turn>user\n",
        .user_after = "<end_of_turn>\n",
        .answer_before = "<start_of_turn>model\n",
        .answer_after = "<end_of_turn>\n",
        .prompt = "<start_of_turn>model\n",
        .trims = TMS_CHAT_TRIM_USER | TMS_CHAT_TRIM_ANSWER,
        .ends = {"<end_of_turn>"},
    },
    /* ---- DeepSeek ---- */
    {
        .name = "deepseek-r1",
        .models = "DeepSeek-R1 and what was distilled from it",
        .needs = {"<｜User｜>", "'<｜Assistant｜><think>\n'", "content.split('</think>')[-1]"},
        .lacks = {"message['content'] + '<｜end▁of▁sentence｜>' -}}\n    {%- endif -%}\n    {%- if message['role'] == "
                  "'assistant' "
                  "and not",
                  "thinking is defined", "lstrip"},
        DEEPSEEK_BLOCKS,
        .prompt = "<｜Assistant｜><think>\n",
        .thinking = TMS_CHAT_DROP,
    },
    {
        .name = "deepseek-r1-january",
        .models = "DeepSeek-R1 with its first template",
        .needs = {"<｜User｜>", "'<｜Assistant｜>'", "content.split('</think>')[-1]"},
        .lacks = {"<think>", "thinking", "lstrip"},
        DEEPSEEK_BLOCKS,
        .prompt = "<｜Assistant｜>",
        .thinking = TMS_CHAT_DROP,
    },
    {
        .name = "deepseek-v3",
        .models = "DeepSeek-V2.5, V3",
        .needs = {"'<｜User｜>' + message['content']", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"},
        .lacks = {"think", "'<｜User｜>' + message['content'] + "},
        DEEPSEEK_BLOCKS,
        .prompt = "<｜Assistant｜>",
    },
    {
        .name = "deepseek-v2",
        .models = "DeepSeek-V2, DeepSeek LLM",
        .needs = {"'User: ' + message['content'] + '\n\n'", "'Assistant: ' + message['content'] + eos_token"},
        .lacks = {"trim", "strip("},
        .begin = "{bos}",
        .system_before = "",
        .system_after = "\n\n",
        .user_before = "User: ",
        .user_after = "\n\n",
        .answer_before = "Assistant: ",
        .answer_after = "{eos}",
        .prompt = "Assistant:",
    },
    /* ---- Phi ---- */
    {
        .name = "phi4-mini",
        .models = "Phi-4-mini",
        .needs = {"'<|' + message['role'] + '|>' + message['content'] + '<|end|>'", "<|assistant|>"},
        .begin = "{bos}",
        .system_before = "<|system|>",
        .system_after = "<|end|>",
        .user_before = "<|user|>",
        .user_after = "<|end|>",
        .answer_before = "<|assistant|>",
        .answer_after = "<|end|>",
        .prompt = "<|assistant|>",
        .ends = {"<|end|>"},
    },
    {
        .name = "phi3",
        .models = "Phi-3, Phi-3.5",
        .needs = {"<|assistant|>", "<|end|>", "message['content'] + '<|end|>"},
        .lacks = {"You are", "trim", "<|begin|>"},
        .begin = "{bos}",
        .system_before = "<|system|>\n",
        .system_after = "<|end|>\n",
        .user_before = "<|user|>\n",
        .user_after = "<|end|>\n",
        .answer_before = "<|assistant|>\n",
        .answer_after = "<|end|>\n",
        .prompt = "<|assistant|>\n",
        .ends = {"<|end|>"},
    },
    /* ---- harmony ---- */
    {
        .name = "gpt-oss",
        .models = "gpt-oss (harmony)",
        .needs = {"<|start|>", "<|channel|>", "Valid channels: analysis, commentary, final"},
        .begin = "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"
                 "Knowledge cutoff: 2024-06\nCurrent date: {today}\n\nReasoning: medium\n\n"
                 "# Valid channels: analysis, commentary, final. Channel must be included for every message.<|end|>",
        .system_before = "<|start|>developer<|message|># Instructions\n\n",
        .system_after = "\n\n<|end|>",
        .user_before = "<|start|>user<|message|>",
        .user_after = "<|end|>",
        .answer_before = "<|start|>assistant<|channel|>final<|message|>",
        .answer_after = "<|end|>",
        .prompt = "<|start|>assistant",
        .ends = {"<|return|>", "<|call|>"},
        .harmony = true,
    },
};

const struct tms_chat_family *tms_chat_family_at(size_t i)
{
    return i < sizeof families / sizeof *families ? &families[i] : NULL;
}

const char *tms_chat_family_names(struct tms_buf *room)
{
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        tms_buf_printf(room, "%s%s", i ? ", " : "", families[i].name);
    tms_buf_put(room, "", 1);
    return room->failed ? "those that tamis knows" : (const char *)room->data;
}

tms_status tms_chat_family_find(const struct tms_chat_family **out, const char *name, struct tms_error *err)
{
    struct tms_buf names = {0};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++)
        if (strcasecmp(families[i].name, name) == 0) {
            *out = &families[i];
            return TMS_OK;
        }
    tms_status status = tms_fail(err, TMS_EINPUT, "'%s' is no chat template that tamis knows; there are %s", name,
                                 tms_chat_family_names(&names));
    tms_buf_free(&names);
    return status;
}
