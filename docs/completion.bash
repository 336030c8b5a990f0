# bash completion for tamis
_tamis()
{
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}
    local types="f32 f16 bf16 q8_0 q6_k q5_k_m q5_k_s q4_k_m q4_k_s q3_k_l q3_k_m q3_k_s q2_k q2_k_s iq4_nl iq4_xs iq3_m
        iq3_s iq3_xs iq3_xxs iq2_m iq2_s iq2_xs iq2_xxs iq1_m iq1_s tq2_0 tq1_0 q2_0 q1_0 mxfp4_moe nvfp4 q5_1 q5_0 q4_1
        q4_0 copy nf4 nf4:dq fp4 int8 gptq gptq:4:g128 gptq:4:g32 gptq:4:g128:act gptq:8:channel awq w4a16
        w4a16:asym w8a16 w8a8 fp8 fp8:tensor fp8:block nvfp4a16 mxfp4a16 hf:bf16 hf:f16
        hf:f32"
    local recipe="--imatrix --include-weights --exclude-weights --tensor-type --tensor-type-file --output-tensor-type
        --token-embedding-type --leave-output-tensor --pure --keep-split --override-kv --prune-layers"
    local common="--json --threads --quiet --verbose --help"
    local options
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "inspect check convert quantize llama-quantize calibrate diff verify explain eval run chat bench tokenize types --help --version" -- "$current")
        return
    fi
    case $previous in
    --to)
        # the last of a list of types
        local before=${current%"${current##*,}"}
        mapfile -t COMPREPLY < <(compgen -P "$before" -W "$types" -- "${current##*,}")
        return ;;
    --source|--model|--manifest|--base|--data|--tasks|--ids|--render) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
    --template) mapfile -t COMPREPLY < <(compgen -W "chatml qwen3 qwen3-thinking qwen3-coder qwq llama2 llama3 llama3.1
        llama3.2 mistral-v0.1 mistral-v0.2 mistral-v1 mistral-v3 mistral-v3-tekken mistral-v7 mistral-v7-tekken gemma
        deepseek-v2 deepseek-v3 deepseek-r1 deepseek-r1-january phi3 phi4 phi4-mini gpt-oss" -- "$current"); return ;;
    --for) mapfile -t COMPREPLY < <(compgen -W "vllm transformers gptqmodel autoawq" -- "$current"); return ;;
    --method) mapfile -t COMPREPLY < <(compgen -W "rtn search gptq awq awq+gptq smooth smooth+gptq hqq" -- "$current"); return ;;
    --style) mapfile -t COMPREPLY < <(compgen -W "llama full" -- "$current"); return ;;
    --kv) mapfile -t COMPREPLY < <(compgen -W "f32 f16 bf16 q8_0 q5_0 q4_0 c8" -- "$current"); return ;;
    --outtype) mapfile -t COMPREPLY < <(compgen -W "f32 f16 bf16 q8_0 auto" -- "$current"); return ;;
    esac
    case $command in
    inspect) options="--to --tensors" ;;
    convert) options="--output --outtype --split-max-size --split-max-tensors --vocab-only --dry-run --model-name --pre --no-verify --provenance --manifest" ;;
    llama-quantize) options="$recipe --allow-requantize --dry-run" ;;
    quantize) options="$recipe --allow-requantize --to --output --method --data --stats --sequential --damp --samples --seqlen --template --ram --compat --dry-run --force --no-verify --provenance --manifest --model-name --pre --split-max-size --split-max-tensors --max-shard-size" ;;
    check) options="--for" ;;
    diff) options="--all" ;;
    verify) options="$recipe --source --to --compat --model-name --pre --split-max-size --split-max-tensors --max-shard-size --vocab-only" ;;
    explain) options="--model --tensor" ;;
    calibrate) options="--data --output --samples --seqlen --seed --template --no-bos --parse-special --imatrix --process-output
        --hessian --keep-hessian --histogram --ram" ;;
    eval) options="--data --ids --base --style --ctx --chunks --no-bos --ram --kv --kv-keep-first --kv-keep-last --fast --llm-int8 --tasks" ;;
    run) options="--prompt --file --ids --n-predict --temp --top-k --top-p --min-p --repeat-penalty --repeat-last-n --seed
        --stop --ignore-eos --echo --special --no-special --no-parse-special --ctx --kv --kv-keep-first --kv-keep-last --exact --llm-int8 --logits --hidden" ;;
    bench) options="--n-prompt --n-gen --repetitions --depth --ctx --kv --exact --llm-int8" ;;
    chat) options="--system --template --n-predict --temp --top-k --top-p --min-p --repeat-penalty --repeat-last-n --seed --stop --ctx
        --kv --kv-keep-first --kv-keep-last --exact --llm-int8 --render" ;;
    tokenize) options="--special --no-parse-special --jsonl" ;;
    *) options= ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options $common" -- "$current")
    else
        compopt -o filenames 2>/dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
complete -F _tamis tamis
