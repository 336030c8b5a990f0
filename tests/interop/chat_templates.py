#!/usr/bin/env python3
"""Chat templates: what tamis writes beside what transformers renders.

usage: chat_templates.py TAMIS FOLDER-WITH-TOKENIZER TEMPLATES... [--golden FOLDER]

TEMPLATES are .jinja files or folders of them (llama.cpp has some in models/templates), tokenizer_config.json files, and
llama.cpp's tests/test-chat-template.cpp. Each is put beside the tokenizer of the folder (models/pebble will do), and
conversations are written by both: they must be equal, or tamis must refuse the template. Templates of this file, which
have the published ones' features, are always among them. With --golden, what transformers rendered for one template of
each family is kept as FAMILY.json for tests/unit/test_chat.c. Ids are compared, too: with the folder's tokenizer all but those of
conversations that write special tokens themselves must be what the library tokenizers gives. Needs transformers (5.x), for development only.
"""

import datetime
import json
import os
import re
import subprocess
import sys
import tempfile

from tokenizers import Tokenizer
from transformers.utils.chat_template_utils import _compile_jinja_template

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


def templates_of(path):
    if os.path.isdir(path):
        for name in sorted(os.listdir(path)):
            if name.endswith(".jinja"):
                yield from templates_of(os.path.join(path, name))
    elif path.endswith(".jinja"):
        yield os.path.basename(path)[:-6], open(path, encoding="utf-8").read()
    elif path.endswith(".json"):
        text = json.load(open(path, encoding="utf-8")).get("chat_template")
        if isinstance(text, str):
            yield os.path.basename(os.path.dirname(path)), text
    elif path.endswith(".cpp"):
        name = None
        for line in open(path, encoding="utf-8"):
            if match := re.search(r'/\* \.name= \*/ "(.*?)",', line):
                name = match.group(1)
            if match := re.search(r'/\* \.template_str= \*/\s*(?:U8C\()?(".*")\)?,?\s*$', line):
                yield "cpp: " + name, c_string(match.group(1))


def rendered(template, messages, words):
    try:
        return template.render(messages=messages, add_generation_prompt=True, enable_thinking=True, **words)
    except Exception as problem:  # the template's own refusal
        return problem


def main():
    arguments = sys.argv[1:]
    golden = None
    if "--golden" in arguments:
        at = arguments.index("--golden")
        golden = arguments[at + 1]
        del arguments[at : at + 2]
    tamis, folder, paths = arguments[0], os.path.realpath(arguments[1]), arguments[2:]
    settings = json.load(open(os.path.join(folder, "tokenizer_config.json"), encoding="utf-8"))
    tokenizer = json.load(open(os.path.join(folder, "tokenizer.json"), encoding="utf-8"))
    words = {"bos_token": "<-bos->", "eos_token": "<-eos->"}  # so that it shows where a template has them
    for word in words.values():
        last = max([t["id"] for t in tokenizer["added_tokens"]] + list(tokenizer["model"]["vocab"].values()))
        tokenizer["added_tokens"].append({"id": last + 1, "content": word, "special": True, "normalized": False,
                                          "single_word": False, "lstrip": False, "rstrip": False})
    settings.update(words)
    templates = list(OWN.items()) + [t for path in paths for t in templates_of(path)]
    library = Tokenizer.from_str(json.dumps(tokenizer))
    kept, differing = {}, 0
    with tempfile.TemporaryDirectory() as scratch:
        settings.pop("chat_template", None)
        settings.pop("added_tokens_decoder", None)
        json.dump(tokenizer, open(os.path.join(scratch, "tokenizer.json"), "w"))
        json.dump(settings, open(os.path.join(scratch, "tokenizer_config.json"), "w"))
        for name, text in templates:
            open(os.path.join(scratch, "chat_template.jinja"), "w", encoding="utf-8").write(text)
            family, equal, notes, cases = None, 0, [], []
            for title, messages in conversations():
                conversation = os.path.join(scratch, "conversation.json")
                json.dump(messages, open(conversation, "w"))
                run = subprocess.run([tamis, "chat", scratch, "--render", conversation, "--json"], capture_output=True)
                if run.returncode != 0:
                    notes.append(title + ": " + run.stderr.decode().split(": ", 2)[-1][:60].strip())
                    if b"of no family" in run.stderr:
                        break
                    continue
                made = json.loads(run.stdout)
                family = made["template"]
                want = rendered(_compile_jinja_template(text), messages, words)
                if isinstance(want, Exception):
                    notes.append(f"{title}: transformers refuses ({want})"[:70])
                elif made["text"] == want:
                    equal += 1
                    cases.append({"name": title, "messages": messages, "text": want})
                    same = library.encode(want, add_special_tokens=False).ids == made["ids"]
                    if not same and not title.startswith("markup"):
                        notes.append(f"{title}: IDS DIFFER")
                        differing += 1
                elif messages[0]["role"] == "system" and messages[0]["content"].strip() not in want:
                    notes.append(f"{title}: the template drops the system text")
                else:
                    notes.append(f"{title}: DIFFERS\n  want {want!r}\n  have {made['text']!r}")
                    differing += 1
            print(f"{name}: {family or 'refused'}, {equal} equal" + "".join("\n  " + n for n in notes[:6]))
            if family and (family not in kept or len(cases) > len(kept[family]["cases"])):
                kept[family] = {"family": family, "template": name, "default": made["default_system"], "cases": cases}
    print(f"{len(templates)} templates, {len(kept)} families, {differing} differences")
    if golden:
        today = datetime.date.today()
        for family, data in kept.items():
            for case in data["cases"]:  # templates that tell the date
                case["text"] = case["text"].replace(today.strftime("%d %b %Y"), "{date}")
                case["text"] = case["text"].replace(today.strftime("%Y-%m-%d"), "{today}")
            data.update(words)
            with open(os.path.join(golden, family + ".json"), "w", encoding="utf-8") as out:
                json.dump(data, out, ensure_ascii=True, indent=0)
                out.write("\n")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
