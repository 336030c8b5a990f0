"""Makes tests/golden/chat: conversations as transformers writes them, for one template of each family that tamis knows.

chat_golden.py [--tamis TAMIS] [--peers DIR]: run.sh puts the peers there. Dates are {date} and {today}.
"""

from __future__ import annotations

import datetime
import json
import sys

from chat_same import all_templates, check, prepare
from common import REPOSITORY, start

OUT = REPOSITORY / "tests/golden/chat"


def main() -> int:
    context = start(__doc__)
    prepared, best = prepare(context, context.options.pebble), {}
    for name, text in all_templates(context):
        made, _, differences = check(context, prepared, text)
        if not made or differences:
            continue
        if made["family"] not in best or len(made["cases"]) > len(best[made["family"]]["cases"]):
            best[made["family"]] = {"template": name, **made}
    today = datetime.date.today()
    OUT.mkdir(exist_ok=True)
    for family, made in best.items():
        for case in made["cases"]:
            case["text"] = case["text"].replace(today.strftime("%d %b %Y"), "{date}").replace(today.strftime("%Y-%m-%d"), "{today}")
        (OUT / f"{family}.json").write_text(json.dumps(made, indent=0) + "\n", encoding="ascii")
    print(f"{len(best)} families")
    return 0


if __name__ == "__main__":
    sys.exit(main())
