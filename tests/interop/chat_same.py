"""tamis writes conversations as transformers' apply_chat_template does, or refuses the template.

The templates are those that llama.cpp carries (models/templates, tests/test-chat-template.cpp), the models' own, and some of
this file with the features of published ones. Each is put beside pebble's tokenizer, with tokens for BOS and EOS that show
where a template has them, and conversations with and without a system text are written by both. Ids are those of the library
tokenizers, but for conversations that spell special tokens: there tamis reads plain text. `chat_golden.py` keeps one template
of each family for the unit tests.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from common import REPOSITORY, Context, Refused, Table, start

# Written from the published descriptions of the formats; no published text stands here.
OWN = {
    "llama2": """{%- if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}{% set sys = messages[0]['content'] %}
{%- else %}{% set rest = messages %}{% set sys = false %}{% endif %}
{%- for message in rest %}{% if loop.index0 == 0 and sys != false %}
{%- set content = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}
{%- set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}
{{- bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% else %}
{{- ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}""",
    "qwen2": """{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}""",
    "mistral-v0.1": """{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}
{{- '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}
{{- message['content'] + eos_token + ' ' }}{% else %}{{ raise_exception('no such role') }}{% endif %}{% endfor %}""",
    "gemma3": """{{ bos_token }}{%- if messages[0]['role'] == 'system' %}{% set first = messages[0]['content'] + '\\n\\n' %}
{%- set rest = messages[1:] %}{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}
{%- for message in rest %}{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}
{{- '<start_of_turn>' + role + '\\n' + (first if loop.first else '') }}{{ message['content'] | trim }}
{{- '<end_of_turn>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}""",
    "deepseek-r1-january": """{% set ns = namespace(system='') %}{% for message in messages %}
{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}{% for message in messages %}{% if message['role'] == 'user' %}
{{- '<｜User｜>' + message['content'] }}{% elif message['role'] == 'assistant' %}{% set content = message['content'] %}
{%- if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}
{{- '<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}""",
    "deepseek-v3": """{% set ns = namespace(system='') %}{% for message in messages %}
{%- if message['role'] == 'system' %}{% set ns.system = message['content'] %}{% endif %}{% endfor %}
{{- bos_token }}{{ ns.system }}{% for message in messages %}{% if message['role'] == 'user' %}
{{- '<｜User｜>' + message['content'] }}{% elif message['role'] == 'assistant' %}
{{- '<｜Assistant｜>' + message['content'] + '<｜end▁of▁sentence｜>' }}{% endif %}{% endfor %}
{%- if add_generation_prompt %}{{ '<｜Assistant｜>' }}{% endif %}""",
    "qwen3-thinking": """{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages %}{% set content = message.content %}
{%- if message.role == 'assistant' and '</think>' in content and loop.index0 < ns.last_query_index %}
{%- set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}
{{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}""",
    "phi4-mini": """{% for message in messages %}
{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}""",
}

BLANK = "\u00a0 \t\x1f"
CONVERSATIONS = {
    "one": ["Hello"],
    "three": ["Hello", "Hi there", "Who are you?"],
    "spaces": ["  a\n\n", f"\n b {BLANK}", f" c\u3000\n", "\n\n d ", "\te"],
    "thoughts": ["2+2?", "<think>\nAdd.\n</think>\n\n4", "3+3?", "</think>x</think>\n6 ", "7?"],
    "markup": ["<|im_end|>\n<|im_start|>system\n[/INST] </s> <|eot_id|><end_of_turn>", "«é» {bos} {{ 1 }} 日本", "{eos}"],
}
SYSTEMS = {"": None, "system": "You are a helpful assistant", "system-spaces": " \n Be kind. \n"}


def conversations():
    for name, turns in CONVERSATIONS.items():
        for suffix, system in SYSTEMS.items():
            messages = [{"role": "system", "content": system}] if system is not None else []
            for i, text in enumerate(turns):
                messages.append({"role": "assistant" if i % 2 else "user", "content": text})
            yield name + ("-" + suffix if suffix else ""), messages


def c_string(text):
    return json.loads(text.replace("\\'", "'"))


def templates_of(path: Path):
    """(name, Jinja text) of a .jinja file, a folder of them, a tokenizer_config.json, or llama.cpp's test program."""
    if path.is_dir():
        for one in sorted(path.glob("*.jinja")):
            yield one.stem, one.read_text(encoding="utf-8")
    elif path.suffix == ".json":
        text = json.loads(path.read_text(encoding="utf-8")).get("chat_template")
        if isinstance(text, str):
            yield path.parent.name, text
    else:
        name = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := re.search(r'/\* \.name= \*/ "(.*?)",', line):
                name = match.group(1)
            if match := re.search(r'/\* \.template_str= \*/\s*(?:U8C\()?(".*")\)?,?\s*$', line):
                yield name, c_string(match.group(1))


def all_templates(context: Context):
    yield from OWN.items()
    source = context.llama_source()
    yield from templates_of(source / "models/templates")
    yield from templates_of(source / "tests/test-chat-template.cpp")


def prepare(context: Context, folder: Path) -> tuple[Path, dict[str, str], object]:
    """A folder with the tokenizer and two tokens more, their names, and the tokenizer of the library."""
    from tokenizers import Tokenizer
    out = context.work / "tokenizer"
    out.mkdir(exist_ok=True)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = {"bos_token": "<-bos->", "eos_token": "<-eos->"}
    for word in words.values():
        last = max([t["id"] for t in tokenizer["added_tokens"]] + list(tokenizer["model"]["vocab"].values()))
        tokenizer["added_tokens"].append({"id": last + 1, "content": word, "special": True, "normalized": False,
                                          "single_word": False, "lstrip": False, "rstrip": False})
    settings.update(words)
    settings.pop("chat_template", None)
    settings.pop("added_tokens_decoder", None)
    (out / "tokenizer_config.json").write_text(json.dumps(settings))
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    return out, words, Tokenizer.from_str(json.dumps(tokenizer))


def rendered(text: str, messages: list[dict], words: dict[str, str]):
    from transformers.utils.chat_template_utils import _compile_jinja_template
    try:
        return _compile_jinja_template(text).render(messages=messages, add_generation_prompt=True, enable_thinking=True, **words)
    except Exception as problem:  # the template's own refusal
        return problem


def check(context: Context, prepared: tuple, text: str) -> tuple[dict | None, list[str], list[str]]:
    """What tamis made of a template (None: refused), remarks, differences."""
    folder, words, library = prepared
    made, cases, remarks, differences = None, [], [], []
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    conversation = folder / "conversation.json"
    for title, messages in conversations():
        conversation.write_text(json.dumps(messages))
        try:
            made = json.loads(context.tamis("chat", folder, "--render", conversation, "--json"))
        except Refused as refusal:
            if "of no family" in str(refusal):
                return None, [], []
            remarks.append("wants a system text")
            continue
        want = rendered(text, messages, words)
        if isinstance(want, Exception):
            remarks.append("transformers takes no system text")
        elif made["text"] != want and messages[0]["role"] == "system" and messages[0]["content"].strip() not in want:
            remarks.append("drops the system text")
        elif made["text"] != want:
            differences.append(f"{title}: {made['text']!r}, theirs {want!r}"[:300])
        else:
            cases.append({"name": title, "messages": messages, "text": want})
            if not title.startswith("markup") and library.encode(want, add_special_tokens=False).ids != made["ids"]:
                differences.append(f"{title}: other ids")
    result = {"family": made["template"], "default": made["default_system"], "cases": cases, **words} if made else None
    return result, sorted(set(remarks)), differences


def main() -> int:
    shared = REPOSITORY.parent / "shared/tokenizers"
    context = start(__doc__, ["pebble"] + [str(shared / name) for name in ("qwen3", "deepseek_v3", "llama3_1") if (shared / name).is_dir()])
    table = Table(("template", "family", "equal", "remarks"))
    families, refused = set(), 0
    for model in context.models():
        folder = context.model(model)
        prepared = prepare(context, folder)
        templates = all_templates(context) if model == "pebble" else templates_of(folder / "tokenizer_config.json")
        for name, text in templates:
            made, remarks, differences = check(context, prepared, text)
            if made:
                families.add(made["family"])
                table.add(not differences, name[:60], made["family"], len(made["cases"]), "; ".join(remarks + differences))
            refused += made is None
    return table.finish(f"tamis writes conversations as transformers does: {len(families)} families; {refused} templates are refused")


if __name__ == "__main__":
    sys.exit(main())
