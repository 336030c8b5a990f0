#!/usr/bin/env bash
# The program as a person meets it: what it prints, its exit codes, what it leaves behind.
# usage: run.sh TAMIS; run from the root of the repository
set -uo pipefail
tamis=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
passed=0
failed=0
sanitized=no
if grep -qaE '__(asan|tsan)_init' "$tamis"; then sanitized=yes; fi

# expect NAME EXIT-CODE PATTERN COMMAND...: the exit code, and a line of output or error that matches the pattern
# (unless that is empty)
expect() {
    local name=$1 want=$2 pattern=$3 got=0
    shift 3
    "$@" >"$scratch/out" 2>&1 || got=$?
    if [ "$got" = "$want" ] && { [ -z "$pattern" ] || grep -qE -- "$pattern" "$scratch/out"; }; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "FAILED $name: exit $got, want $want with /$pattern/ of:"
        head -n 20 "$scratch/out"
    fi
}

config=tests/golden/configs/deepseek-r1-distill-qwen-7b.json
expect published_parameters 0 '^parameters: 7,615,616,512 \(7\.62B\)$' "$tamis" inspect $config
expect published_stored_elements 0 '^all +339 +4,352,972,288 ' "$tamis" inspect $config --to nf4
expect published_float16 0 'float16 1,090,328,064 \(25\.05 %\), uint8 3,262,644,224 \(74\.95 %\)' "$tamis" inspect $config --to nf4
expect published_sixteen_bit_row 0 '^bfloat16 +143 +1,090,328,064 +\(25\.05 %\)' "$tamis" inspect $config --to nf4
expect published_uint8_row 0 '^uint8 +196 +3,262,644,224 +\(74\.95 %\)' "$tamis" inspect $config --to nf4
expect published_q_proj 0 'layers\.0\.self_attn\.q_proj\.weight +\(6422528, 1\) +uint8' "$tamis" inspect $config --to nf4
expect published_k_proj 0 'layers\.27\.self_attn\.k_proj\.weight +\(917504, 1\) +uint8' "$tamis" inspect $config --to nf4
expect published_gate_proj 0 'layers\.13\.mlp\.gate_proj\.weight +\(33947648, 1\) +uint8' "$tamis" inspect $config --to nf4
expect scales_are_shown 0 '^absmax +196 +101,957,632 .* 407,830,528$' "$tamis" inspect $config --to nf4
expect nested_scales_are_shown 0 '^nested_absmax +196 ' "$tamis" inspect $config --to nf4:dq
expect size_on_disk_is_shown 0 '^size on disk: 5,851,270,388 bytes' "$tamis" inspect $config --to nf4
expect gguf_total_of_a_config 0 '^all tensors: 4,677,120,000 bytes \(4\.68 GB\), 4\.9132 bits per weight$' "$tamis" inspect $config --to q4_k_m
for type in q8_0 q4_0 q4_1 q5_0 q5_1 q4_k_s q4_k_m q5_k_s q5_k_m q6_k q2_k q2_k_s q3_k_s q3_k_m q3_k_l f16 bf16 f32 copy nf4 nf4:dq fp4 fp4:b128 int8 gptq awq w4a16:asym w8a8 fp8:block nvfp4a16 mxfp4; do
    expect "total_of_$type" 0 '^all tensors: [0-9,]+ bytes .*, [0-9.]+ bits per weight$' "$tamis" inspect $config --to "$type"
done
expect inspect_folder 0 '^model\.layers\.5\.mlp\.up_proj\.weight +\(768, 256\) +bfloat16 +196,608 +393,216$' "$tamis" inspect models/pebble
expect inspect_shard 0 '^parameters: 5,773,568' "$tamis" inspect models/pebble/model.safetensors
expect inspect_json 0 '"parameters": 5773568' "$tamis" inspect models/pebble --json
expect check_good 0 'good: 74 tensors, 11\.5 MB, all values finite' "$tamis" check models/pebble
expect check_json 0 '"ok": true' "$tamis" check models/pebble --json

expect quantize_three 0 '^nf4:dq +.*/pebble-nf4-dq ' "$tamis" quantize models/pebble --to q8_0,q4_k_m,nf4:dq -o "$scratch/three"
expect quantize_was_read_back 0 'every output was read back' "$tamis" quantize models/pebble --to q8_0 -o "$scratch/one.gguf"
expect inspect_gguf 0 '^blk\.0\.attn_k\.weight +\(128, 256\) +q4_k ' "$tamis" inspect "$scratch/three/pebble-q4_k_m.gguf"
expect inspect_nf4 0 '^parameters: 5,773,568 ' "$tamis" inspect "$scratch/three/pebble-nf4-dq"
expect check_gguf 0 'good: 74 tensors' "$tamis" check "$scratch/three/pebble-q4_k_m.gguf"
expect check_nf4 0 'good: ' "$tamis" check "$scratch/three/pebble-nf4-dq"
expect quantize_grids 0 '^awq:g128 +.*/pebble-awq-g128 ' "$tamis" quantize models/pebble --to gptq:4:g32,awq,w8a8 -o "$scratch/grids"
expect check_for_vllm 0 'good: ' "$tamis" check "$scratch/grids/pebble-gptq-4-g32" --for vllm
expect check_for_another 2 'for autoawq: quant_method gptq is not read' "$tamis" check "$scratch/grids/pebble-gptq-4-g32" --for autoawq
expect check_for_nobody 1 "expected vllm, transformers, gptqmodel or autoawq" "$tamis" check "$scratch/grids/pebble-awq-g128" --for nobody
expect moves_without_loss 0 '^w4a16:g32 +.* 0\.000e\+00 +0\.00 %' "$tamis" quantize "$scratch/grids/pebble-gptq-4-g32" --to w4a16:g32 -o "$scratch/moved"
expect run_gptq 0 . "$tamis" run "$scratch/grids/pebble-gptq-4-g32" -p 'The capital' -n 4
expect quantize_json 0 '"verified": true' "$tamis" quantize models/pebble --to q6_k -o "$scratch/j.gguf" --json
expect quantize_quiet_prints_nothing 1 '' bash -c "'$tamis' quantize models/pebble --to q6_k -o '$scratch/j.gguf' -q 2>&1 | grep ."
expect split_files 0 '00001-of-00004' "$tamis" convert models/pebble -o "$scratch/s.gguf" --split-max-tensors 20
expect inspect_split 0 '^parameters: 5,773,568 ' "$tamis" inspect "$scratch/s-00001-of-00004.gguf"
expect later_shard_names_the_first 2 'give the first one' "$tamis" check "$scratch/s-00002-of-00004.gguf"
expect fallbacks_are_counted 0 'tensors have rows that do not fit' "$tamis" quantize tests/golden/arch/qwen2_tied --to q4_k_m -o "$scratch/f.gguf"
expect dry_run 0 'nothing was written' "$tamis" quantize models/pebble --to q4_0 -o "$scratch/dry.gguf" --dry-run
expect dry_run_left_nothing 1 '' test -e "$scratch/dry.gguf"

expect diff_of_folder_and_gguf 4 '^model\.layers\.0\.mlp\.up_proj\.weight +bfloat16 +q4_k +7\.[0-9]+ % ' "$tamis" diff models/pebble "$scratch/three/pebble-q4_k_m.gguf"
expect diff_sums_up 4 '^42 of 74 tensors differ; relative error 8\.5[0-9]+ %' "$tamis" diff models/pebble "$scratch/three/pebble-nf4-dq"
expect diff_of_itself 0 '^equal: 74 tensors, 5,773,568 values' "$tamis" diff models/pebble models/pebble
expect diff_tells_keys 4 '^general\.file_type +7 +15$' "$tamis" diff "$scratch/three/pebble-q8_0.gguf" "$scratch/three/pebble-q4_k_m.gguf"
expect diff_json 4 '"equal": false' "$tamis" diff models/pebble "$scratch/three/pebble-nf4-dq" --json
expect diff_of_nothing 2 'no such file' "$tamis" diff models/pebble "$scratch/nowhere"
expect verify_gguf 0 'verified: Q4_K_M of .* same in every byte' "$tamis" verify "$scratch/three/pebble-q4_k_m.gguf" --source models/pebble
expect verify_folder 0 'verified: nf4:dq of ' "$tamis" verify "$scratch/three/pebble-nf4-dq" --source models/pebble
expect verify_json 0 '"identical": true' "$tamis" verify "$scratch/three/pebble-q8_0.gguf" --source models/pebble --json
expect verify_split 0 'verified: BF16 of .* same in every byte' "$tamis" verify "$scratch/s-00001-of-00004.gguf" --source models/pebble
expect verify_split_otherwise 0 'laid out in another way' "$tamis" verify "$scratch/s-00001-of-00004.gguf" --source models/pebble --split-max-tensors 70
expect verify_as_told 0 'same in every byte' bash -c "'$tamis' quantize models/pebble --to q4_k_m --pure --tensor-type ffn_up=q5_0 -o '$scratch/p.gguf' -q && '$tamis' verify '$scratch/p.gguf' --source models/pebble --pure --tensor-type ffn_up=q5_0"
expect verify_not_as_told 4 "^tensor 'blk\.0\.ffn_up\.weight' is q5_0 " "$tamis" verify "$scratch/p.gguf" --source models/pebble --pure
expect verify_vocabulary 0 'same in every byte' bash -c "'$tamis' convert models/pebble --vocab-only -o '$scratch/v.gguf' -q && '$tamis' verify '$scratch/v.gguf' --source models/pebble --vocab-only"
expect verify_plain_folder 0 'verified: hf:f16 of .* same in every byte' bash -c "'$tamis' quantize '$scratch/three/pebble-q8_0.gguf' --to hf:f16 -o '$scratch/plain' -q && '$tamis' verify '$scratch/plain' --source '$scratch/three/pebble-q8_0.gguf'"
expect folder_of_bitsandbytes_to_plain 0 'hf:bf16' "$tamis" quantize "$scratch/three/pebble-nf4-dq" --to hf:bf16 -o "$scratch/decoded"
expect verify_other_type 4 "^tensor 'token_embd\.weight' is q6_k" "$tamis" verify "$scratch/three/pebble-q4_k_m.gguf" --source models/pebble --to q8_0
cp "$scratch/three/pebble-q8_0.gguf" "$scratch/bad.gguf"
printf x | dd of="$scratch/bad.gguf" bs=1 seek=3000000 conv=notrunc status=none
expect verify_names_tensor_row_block 4 "^tensor 'blk\..*' \(q8_0\) row [0-9]+ block [0-9]+: " "$tamis" verify "$scratch/bad.gguf" --source models/pebble
expect verify_needs_a_source 1 -- "$tamis" verify "$scratch/bad.gguf"
expect manifest_is_written 0 '"sha256": "[0-9a-f]{64}"' bash -c "'$tamis' quantize models/pebble --to q8_0 -o '$scratch/told.gguf' --provenance --manifest '$scratch/told.json' -q && cat '$scratch/told.json'"
expect verify_with_provenance 0 'same in every byte' "$tamis" verify "$scratch/told.gguf" --source models/pebble
expect manifest_in_no_folder 3 'cannot be created' "$tamis" quantize models/pebble --to q8_0 -o "$scratch/told2.gguf" --manifest "$scratch/no/where.json"
expect manifest_that_fails_leaves_nothing 1 '' test -e "$scratch/told2.gguf"
expect explain_draws 0 '│ d │ dmin │ scales │ +q +│' "$tamis" explain q4_k
expect explain_measures 0 '^  q4_k +4\.500 +7\.1[0-9] %$' "$tamis" explain Q4_K_M
expect explain_compares 0 'integers of 4 bits, a scale for a group of 32 ' "$tamis" explain q4_k
expect explain_json 0 '"bits_per_weight": 4\.5' "$tamis" explain nf4 --json
expect explain_unknown 1 'is no type' "$tamis" explain q9
expect run_is_greedy 0 '^.*s name was the first of the emperor\. The emperor was the only person' "$tamis" run models/pebble -p 'The emperor' -n 48 --temp 0
expect run_a_quantized_file 0 '[a-z]+' "$tamis" run "$scratch/three/pebble-q4_k_m.gguf" -p 'The emperor' -n 8 --temp 0
expect run_a_bitsandbytes_folder 0 '[a-z]+' "$tamis" run "$scratch/three/pebble-nf4-dq" -p 'The emperor' -n 8 --temp 0
expect run_echoes 0 '^The emperor.*s name was$' "$tamis" run models/pebble -p 'The emperor' -n 3 --temp 0 --echo
expect run_reads_standard_input 0 '^.*s name was$' bash -c "printf 'The emperor' | '$tamis' run models/pebble -p - -n 3 --temp 0"
printf 'The emperor' >"$scratch/prompt"
expect run_reads_a_file 0 '^.*s name was$' "$tamis" run models/pebble -f "$scratch/prompt" -n 3 --temp 0
expect run_stops 0 '^.*s name was the first of the $' "$tamis" run models/pebble -p 'The emperor' --temp 0 --stop 'emperor. The' --stop never
expect run_json 0 '"stop": "length"' "$tamis" run models/pebble -p 'The emperor' -n 3 --temp 0 --json
expect run_json_has_text 0 '"text": ".*s name was"' "$tamis" run models/pebble -p 'The emperor' -n 3 --temp 0 --json
expect run_tells_speed_and_seed 0 '^prompt: [0-9]+ tokens, .* seed 7$' "$tamis" run models/pebble -p 'The emperor' -n 3 --seed 7 -v
expect run_repeats_a_seed 0 '' bash -c "cmp <('$tamis' run models/pebble -p It --seed 3 -n 30) <('$tamis' run models/pebble -p It --seed 3 -n 30 -t 1)"
expect run_tells_that_the_context_is_full 0 'context of 20 positions is full' "$tamis" run models/pebble -p 'The emperor' -n -1 --ctx 20 --temp 0 --ignore-eos
expect run_writes_logits 0 'logits of 3 tokens over a vocabulary of 4,096' "$tamis" run models/pebble --ids 1,2,3 --logits "$scratch/l.safetensors" --hidden
expect logits_file_is_whole 0 '^hidden_states +\(7, 3, 256\) ' "$tamis" inspect "$scratch/l.safetensors"
printf '1, 2\n3' >"$scratch/ids"
expect run_reads_ids_from_a_file 0 '"tokens": 3' "$tamis" run models/pebble --ids "@$scratch/ids" --logits "$scratch/l2.safetensors" --json
expect run_wants_one_prompt 1 'one of -p, --file and --ids, not more' "$tamis" run models/pebble -p x --ids 1
expect run_id_outside 2 'id 4096; ids are 0 to 4095' "$tamis" run models/pebble --ids 1,4096 --logits "$scratch/no.safetensors"
expect run_no_ids 2 'there are none' "$tamis" run models/pebble --ids '' --logits "$scratch/no.safetensors"
expect run_ids_that_are_words 2 "'x' is no number" "$tamis" run models/pebble --ids 1,x
expect run_prompt_too_long 2 'does not fit into a context of 4 positions' "$tamis" run models/pebble --ids 1,2,3,4,5 --ctx 4
expect run_empty_prompt 2 'no tokens' "$tamis" run models/pebble -p ''
expect run_bad_cache 2 "f16" "$tamis" run models/pebble -p x --kv q9
expect run_bad_temperature 1 'temperature -1' "$tamis" run models/pebble -p x --temp -1
expect run_config_alone 2 'no weights' "$tamis" run models/pebble/config.json -p x
expect run_one_file_alone 2 'name the folder' "$tamis" run models/pebble/model.safetensors -p x
expect run_failure_leaves_nothing 2 'No such file' ls "$scratch/no.safetensors"
expect run_interrupted_keeps_what_was_said 130 '^.*s name was the first of the emperor' bash -c "
    '$tamis' run models/pebble -p 'The emperor' -n -1 --ctx 1000000 --temp 0 --ignore-eos -q >'$scratch/said' &
    pid=\$!
    for i in \$(seq 400); do [ \$(stat -c %s '$scratch/said') -gt 400 ] && break; sleep 0.01; done
    kill -INT \$pid
    wait \$pid; code=\$?; cat '$scratch/said'; exit \$code"
expect tokenize_shows 0 '^39 591 78 ' sh -c "printf 'Hello, world!' | '$tamis' tokenize models/pebble"
expect tokenize_answers_lines 0 '"ids":\[39,591,78\]' sh -c "echo '{\"text\": \"Hello\"}' | '$tamis' tokenize models/pebble --jsonl"
expect tokenize_goes_back 0 '"text":"Hello"' sh -c "echo '{\"ids\": [39, 591, 78]}' | '$tamis' tokenize models/pebble --jsonl"
expect tokenize_tells_the_bad_line 2 'standard input, line 2: ' sh -c "printf '{\"text\": \"\"}\\nnonsense\\n' | '$tamis' tokenize models/pebble --jsonl"
chat=("$tamis" chat models/pebble --template chatml --temp 0 -n 8)
expect chat_says_which_templates_there_are 2 'models/pebble: has no chat template: .* chatml, .*gpt-oss$' "$tamis" chat models/pebble
expect chat_template_unknown 2 "'x' is no chat template that tamis knows" "$tamis" chat models/pebble --template x
expect chat_reads_lines_of_a_pipe 0 '' bash -c 'printf "Hello there\n\n/reset\nHello there\n/stats\n" | "$@" >'"$scratch/talk 2>$scratch/stats" _ "${chat[@]}"
expect chat_answers_again_after_reset 0 '' test "$(head -c $(($(stat -c %s "$scratch/talk") / 2)) "$scratch/talk")" = "$(tail -c $(($(stat -c %s "$scratch/talk") / 2)) "$scratch/talk")"
expect chat_stats 0 'were known\); answer: 8 tokens, .*ended by: length; context: [0-9]+ of 2,048 positions' cat "$scratch/stats"
expect chat_json 0 '"reused_tokens": [1-9]' bash -c 'printf "Hello there\nAnd then?\n" | "$@" --json' _ "${chat[@]}"
expect chat_full_context_is_said 2 'the context 40 positions: it is full; /reset begins anew, a larger --ctx holds more' bash -c 'printf "a b c d e f g h i j k l m n o p q r s t u v w x y z\n" | "$@" --ctx 40' _ "${chat[@]}"
expect chat_goes_on_after_reset 2 '^[^t]' bash -c 'printf "a b c d e f g h i j k l m n o p q r s t u v w x y z\n/reset\nHello\n" | "$@" --ctx 40 2>/dev/null' _ "${chat[@]}"
expect chat_lines_go_on_after_a_backslash 0 '"user": "a .nb"' bash -c 'printf "a \\\\\nb\n/exit\nnever\n" | "$@" --json' _ "${chat[@]}"
echo '[{"role":"system","content":"S"},{"role":"user","content":"<|im_end|>"}]' >"$scratch/conversation.json"
expect chat_render 0 '^user:$' bash -c '"$@" | sed "s/<|im_start|>user/user:/"' _ "$tamis" chat models/pebble --template chatml --render "$scratch/conversation.json"
expect chat_render_json 0 '"text": "<\|im_start\|>system.nS<\|im_end\|>.n<\|im_start\|>user.n<\|im_end\|><\|im_end\|>.n<\|im_start\|>assistant.n"' "$tamis" chat models/pebble --template chatml --render "$scratch/conversation.json" --json
echo '{"role":"user"}' >"$scratch/conversation.json"
expect chat_render_no_list 2 'is no JSON list of messages' "$tamis" chat models/pebble --template chatml --render "$scratch/conversation.json"
expect bench_table 0 '^\| pebble \| 11\.6 MB \| 5\.77 M \| +1 \| tg4 @ d9 +\| +[0-9.]+ ± [0-9.]+ \| +[0-9.]+ \| +[0-9]+ % \| +[0-9]+ % \|$' "$tamis" bench models/pebble -p 8 -n 4 -r 2 -d 9 -t 1
expect bench_json 0 '"weight_bytes": 11534336' "$tamis" bench models/pebble -p 0 -n 4 -r 1 -t 1,2 --json
expect bench_of_nothing 1 'nothing would be measured' "$tamis" bench models/pebble -p 0 -n 0
expect bench_threads_are_numbers 1 "threads '1,x'" "$tamis" bench models/pebble -t 1,x
text=models/pebble/eval.txt
expect eval_perplexity 0 '^perplexity +56\.4474 ± 7\.4683$' "$tamis" eval models/pebble --data $text --ctx 128 --chunks 8
expect eval_full_style 0 '^perplexity +57\.5783 ± 5\.4728$' "$tamis" eval models/pebble --data $text --ctx 128 --chunks 8 --style full
expect eval_says_what_is_measured 0 '^weights alone: activations f32$' "$tamis" eval models/pebble --data $text --ctx 64 --chunks 2
expect eval_says_when_it_is_more 0 '^activations f32; keys and values f16, 197 kB a window$' "$tamis" eval models/pebble --data $text --ctx 64 --chunks 2 --kv f16
expect eval_llm_int8 0 '8 bits below 5,' bash -c "'$tamis' quantize models/pebble --to int8 -o '$scratch/int8' -q && '$tamis' eval '$scratch/int8' --data $text --ctx 64 --chunks 2 --llm-int8=5 | sed 's/, others/,/'"
expect eval_divergence 0 '^KL divergence +0\.009720 ± 0\.000469$' "$tamis" eval "$scratch/three/pebble-q4_k_m.gguf" --data $text --base models/pebble --ctx 128 --chunks 8
expect eval_json 0 '"p99.9": 0\.0975' "$tamis" eval "$scratch/three/pebble-q4_k_m.gguf" --data $text --base models/pebble --ctx 128 --chunks 8 --json
expect eval_quiet_is_a_number 0 '^56\.4474$' "$tamis" eval models/pebble --data $text --ctx 128 --chunks 8 -q
expect eval_warns_of_long_windows 0 'warning: models/pebble: was made for [0-9]+ tokens; a window here has 4096' "$tamis" eval models/pebble --data $text --ctx 4096 --chunks 1
"$tamis" quantize models/pebble --to f32 -o "$scratch/large.gguf" -q
for model in "$scratch/large.gguf" models/pebble; do
    # the limit: half a megabyte or more above the least that the program tells
    name=$(basename "$model")
    least=$("$tamis" eval "$model" --data $text --ctx 64 --chunks 100 --ram 1M --threads 1 2>&1 | sed -n 's/.* is \([0-9]*\) MB$/\1/p')
    "$tamis" eval "$model" --data $text --ctx 64 --chunks 100 --json >"$scratch/free.json"
    "$tamis" eval "$model" --data $text --ctx 64 --chunks 100 --ram $((least + 1))M --threads 1 --json >"$scratch/low.json"
    expect "eval_layer_by_layer_$name" 0 '"layer_by_layer": true' cat "$scratch/low.json"
    expect "eval_layer_by_layer_gives_the_same_$name" 0 '' diff <(grep -A8 mean_nll "$scratch/free.json") <(grep -A8 mean_nll "$scratch/low.json")
    peak=$(sed -n 's/.*"peak_memory_bytes": \([0-9]*\).*/\1/p' "$scratch/low.json")
    if [ "$sanitized" = no ]; then # sanitizers have memory of their own
        expect "eval_stays_under_the_limit_$name" 0 '' test "$peak" -le "$((least + 1))000000"
    fi
done
# $least is that of models/pebble, and hidden states of 100 windows take 6.5 MB: they lie in a file
expect eval_disk_full 3 '^tamis: hidden states cannot be written to the file for them: File too large$' bash -c "
    ulimit -f 1000; trap '' XFSZ; exec '$tamis' eval models/pebble --data $text --ctx 64 --chunks 100 --ram $((least + 1))M --threads 1 -q"
expect eval_no_place_for_hidden_states 3 '/nowhere: no file for hidden states can be made there: No such file' \
    env TMPDIR=/nowhere "$tamis" eval models/pebble --data $text --ctx 64 --chunks 100 --ram $((least + 1))M --threads 1
expect eval_limit_too_low 2 'is too low; the least for windows of 512 tokens is [0-9]+ MB' "$tamis" eval models/pebble --data $text --ram 4M
printf '{"question": "The emperor of", "choices": ["the East", "xqz vvv"], "answer": "A"}\n' >"$scratch/q.jsonl"
expect eval_tasks 0 '^accuracy +100\.000 ± 0\.000 %$' "$tamis" eval models/pebble --tasks "$scratch/q.jsonl"
expect eval_tasks_json 0 '"chosen": 0' "$tamis" eval models/pebble --tasks "$scratch/q.jsonl" --json
echo '{"question": 3}' >>"$scratch/q.jsonl"
expect eval_tasks_bad_line 2 'q\.jsonl: line 2: "question" is missing' "$tamis" eval models/pebble --tasks "$scratch/q.jsonl"
expect eval_needs_a_text 1 'one of --data, --ids and --tasks' "$tamis" eval models/pebble
expect eval_no_chunks 2 'nothing would be predicted' "$tamis" eval models/pebble --data $text --chunks 0
expect eval_small_context 2 'context of 4 tokens is too small' "$tamis" eval models/pebble --data $text --ctx 4
expect eval_unknown_style 2 "style 'x' is unknown" "$tamis" eval models/pebble --data $text --style x
expect eval_short_text 2 'tokens are too few: a window needs 512' "$tamis" eval models/pebble --data "$scratch/q.jsonl"
expect eval_no_text 2 '^tamis: /nowhere.txt: no such file$' "$tamis" eval models/pebble --data /nowhere.txt
printf 'caf\351\n' >"$scratch/latin1.txt"
expect eval_text_not_utf8 2 '^tamis: .*latin1.txt: line 1 \(from byte 0 on\) is no UTF-8$' "$tamis" eval models/pebble --data "$scratch/latin1.txt"
expect eval_id_outside 2 'window 1, position 8: token 4096 is not in the vocabulary of 4096' bash -c "echo 0 1 2 3 4 5 6 7 4096 >'$scratch/ids'; exec '$tamis' eval models/pebble --ids '$scratch/ids' --ctx 9"
expect eval_config_alone 2 'config.json alone has no weights' "$tamis" eval $config --data $text
expect eval_other_vocabulary 2 'tokenizer of the base' "$tamis" eval models/pebble --data $text --base tests/golden/arch/qwen2_tied
expect eval_interrupted 130 'interrupted' bash -c "
    '$tamis' eval models/pebble --data $text --threads 1 2>'$scratch/int.err' &
    pid=\$!
    sleep 0.4; kill -TERM \$pid
    wait \$pid; code=\$?; cat '$scratch/int.err'; exit \$code"
expect types_of_tensors 0 '^q4_k +12 +256 +144 +4\.5 +reads, writes +llama\.cpp$' "$tamis" types

expect no_command 1 'usage: tamis COMMAND' "$tamis"
expect help_has_an_example 0 'tamis quantize models/pebble' "$tamis" --help
expect version 0 '^tamis [0-9.]+$' "$tamis" --version
expect unknown_command 1 "'foo' is no command" "$tamis" foo
expect unknown_option 1 "'--foo' is no option" "$tamis" inspect --foo models/pebble
expect missing_model 1 'MODEL is missing' "$tamis" inspect
expect missing_type 1 -- "$tamis" quantize models/pebble -o "$scratch/x"
expect too_many 1 'one argument too many' "$tamis" check models/pebble models/pebble
expect bad_number 1 "--threads 'x' is not understood" "$tamis" check models/pebble --threads x
expect bad_size 1 "is not understood" "$tamis" convert models/pebble -o "$scratch/x" --split-max-size 5X
expect unknown_type 1 "'q9' is no type" "$tamis" quantize models/pebble --to q9 -o "$scratch/x"
expect wrong_path 2 'no such file or folder' "$tamis" inspect "$scratch/nowhere"
expect not_a_model 2 'is no model' "$tamis" inspect README.md
expect needs_weights 2 'needs importance weights' "$tamis" quantize models/pebble --to q2_k_s -o "$scratch/x"
expect gguf_to_folder 0 'nf4:dq' "$tamis" quantize "$scratch/one.gguf" --to nf4:dq -o "$scratch/from-gguf" --allow-requantize
expect gguf_to_folder_verified 0 'nf4:dq of .* same in every byte' "$tamis" verify "$scratch/from-gguf" --source "$scratch/one.gguf"
expect requantize 2 'allow-requantize' "$tamis" quantize "$scratch/one.gguf" --to q4_0 -o "$scratch/x.gguf"
expect no_folder_to_write_in 3 'cannot be created' "$tamis" quantize models/pebble --to q4_0 -o "$scratch/no/where.gguf"
expect folder_exists 1 'exists already' "$tamis" quantize models/pebble --to nf4 -o "$scratch/three"
expect disk_full 3 'no room for' bash -c "ulimit -f 1000; trap '' XFSZ; exec '$tamis' quantize models/pebble --to f32 -o '$scratch/full.gguf'"
expect disk_full_left_nothing 2 'No such file' ls "$scratch"/full.gguf*

# Ctrl-C in the middle: exit 130, one line, nothing left. A pipe that nobody reads from holds the program up.
expect interrupted 130 'interrupted; nothing was left behind' bash -c "
    '$tamis' quantize models/pebble --to f32,q2_k,q3_k_l,q5_k_m,nf4:dq,int8 -o '$scratch/int' --threads 1 2>'$scratch/int.err' &
    pid=\$!
    for i in \$(seq 200); do [ -e '$scratch/int/pebble-f32.gguf.tamis-partial' ] && break; sleep 0.005; done
    kill -TERM \$pid
    wait \$pid; code=\$?; cat '$scratch/int.err'; exit \$code"
expect interrupted_left_nothing 2 'No such file' ls -d "$scratch/int"

# A run that was killed outright: its leftover does no harm and goes with the next run.
"$tamis" quantize models/pebble --to f32,q2_k,q3_k_l,nf4:dq,int8 -o "$scratch/killed" --threads 1 >/dev/null 2>&1 &
pid=$!
for _ in $(seq 200); do [ -e "$scratch/killed/pebble-f32.gguf.tamis-partial" ] && break; sleep 0.005; done
kill -KILL $pid 2>/dev/null
wait $pid 2>/dev/null
expect killed_run_can_be_run_again 0 'every output was read back' "$tamis" quantize models/pebble --to f32,q2_k,q3_k_l,nf4:dq,int8 -o "$scratch/killed" --force
expect leftovers_are_gone 1 '^0$' bash -c "ls '$scratch/killed' | grep -c partial"
if [ "$sanitized" = no ]; then # it takes minutes there
    expect killed_runs_of_calibration_go_on 0 '' tests/cli/killed.sh "$tamis"
fi

# Calibration: what it tells, and what takes it.
calib=models/pebble/calib.txt
expect calibrate_tells_hessians 0 '^25 Hessians, 0 channels that are always 0; a damping of 0\.01 does' "$tamis" calibrate models/pebble --data $calib --samples 8 --seqlen 64 --keep-hessian -o "$scratch/stats"
expect calibrate_tells_experts 0 '^ +0 +6 +[0-9]+ +[0-9]+ +[0-9]+ +[0-9none, ]+$' "$tamis" calibrate tests/golden/arch/mixtral --data $calib --samples 1 --seqlen 16 -o "$scratch/experts"
expect calibrate_sums_up_experts 0 '^of 12 experts [0-9]+ were never seen and [0-9]+ by fewer than 5 tokens' "$tamis" calibrate tests/golden/arch/mixtral --data $calib --samples 1 --seqlen 16 -o "$scratch/experts"
expect calibrate_json_names_experts 0 '"never_seen": \[' "$tamis" calibrate tests/golden/arch/mixtral --data $calib --samples 1 --seqlen 16 -o "$scratch/experts" --json
expect calibrate_unknown_template 2 "'x' is no chat template that tamis knows; there are qwen3" bash -c "echo '{\"messages\": []}' >'$scratch/chat.jsonl'; exec '$tamis' calibrate models/pebble --data '$scratch/chat.jsonl' --template x -o '$scratch/x'"
expect gptq_warns_of_short_texts 0 '^tamis: warning: .*calib.txt: 256 tokens are few for a method that reads a text' "$tamis" quantize models/pebble --to q4_0 --method gptq --data $calib --samples 4 --seqlen 64 -o "$scratch/short.gguf"
expect gptq_damping_is_told 0 '"damp": 2\.0' bash -c "'$tamis' quantize models/pebble --to q4_0 --method gptq --damp 2 --stats '$scratch/stats' -o '$scratch/damp.gguf' --manifest '$scratch/damp.json' -q && cat '$scratch/damp.json'"
expect gptq_damping_counts 1 'differ' bash -c "'$tamis' quantize models/pebble --to q4_0 --method gptq --stats '$scratch/stats' -o '$scratch/undamped.gguf' -q && cmp '$scratch/damp.gguf' '$scratch/undamped.gguf'"
expect gptq_damping_below_zero 1 'damp -1: a share' "$tamis" quantize models/pebble --to q4_0 --method gptq --damp -1 --stats "$scratch/stats" -o "$scratch/x.gguf"
expect damping_of_another_method 1 'damp is for methods with error feedback' "$tamis" quantize models/pebble --to q4_0 --method awq --damp 1 --stats "$scratch/stats" -o "$scratch/x.gguf"
expect gptq_of_statistics_needs_no_imatrix 0 '^IQ2_XS ' "$tamis" quantize models/pebble --to iq2_xs --method gptq --stats "$scratch/stats" -o "$scratch/iq2_xs.gguf"
expect dry_run_counts_on_weights_of_the_text 0 '^IQ2_XS .* 2\.25 MB ' "$tamis" quantize models/pebble --to iq2_xs --method gptq --data $calib -o "$scratch/x.gguf" --dry-run
expect gptq_tells_rare_experts 0 '"matrices_too_rarely_seen": [1-9]' "$tamis" quantize tests/golden/arch/mixtral --to q4_0 --method gptq --data $calib --samples 1 --seqlen 16 -o "$scratch/mix.gguf" --json
expect statistics_of_another_model 2 'statistics of another model, a MixtralForCausalLM of fingerprint ' "$tamis" quantize models/pebble --to q4_0 --imatrix "$scratch/experts" -o "$scratch/x.gguf"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
