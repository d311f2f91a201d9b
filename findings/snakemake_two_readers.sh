#!/usr/bin/env bash
# Guess: Snakemake takes a setting for the same value whether it stands in the --configfile or behind --config.
# What happens: there are three readers. A file is YAML 1.1, in which 1e-4 is a text, 010 is 8 and 12:00 is 720. Behind
# --config a value of its own goes through Python's int and float first: 1e-4 is a number, 010 is 10, 12:00 a text. And in a
# section behind --config ({k: 32}) everything is a text, plain numbers and truth included.
# Why it matters: a sweep of learning rates, of seeds or of k for SAEs is often varied behind --config. What worked in the
# file arrives as a text, or, with a seed such as 010, as another number: a workflow that checks no types trains with another
# seed than its file says, and names folders by k = '32' beside those of k = 32.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check snakemake==9.27.1 PyYAML==6.0.3
cd "$folder"
cat > Snakefile <<'END'
import json
values = {key: config[key] for key in ("rate", "seed", "minutes")}
print("SAID", json.dumps({**values, "section": config["section"]}, sort_keys=True))


rule all:
    input:
        [],
END
cat > study.yaml <<'END'
rate: 1e-4
seed: 010
minutes: 12:00
section: {rate: 1e-4, seed: 010, minutes: 12:00, k: 32, hashes: true}
END
said() { "$folder/venv/bin/snakemake" --cores 1 --dry-run --quiet all "$@" 2>&1 | sed -n 's/^SAID //p' | head -1; }
file=$(said --configfile study.yaml)
line=$(said --config rate=1e-4 seed=010 minutes=12:00 'section={rate: 1e-4, seed: 010, minutes: 12:00, k: 32, hashes: true}')
"$folder/venv/bin/python" -m pip list --disable-pip-version-check 2>/dev/null | grep -iE '^(snakemake|pyyaml|yte) '
echo "file:         $file"
echo "command line: $line"
FILE="$file" LINE="$line" "$folder/venv/bin/python" - <<'END'
import json, os, sys

file, line = json.loads(os.environ["FILE"]), json.loads(os.environ["LINE"])
in_file = {"rate": "1e-4", "seed": 8, "minutes": 720}
on_line = {"rate": 1e-4, "seed": 10, "minutes": "12:00"}
texts = {"rate": "1e-4", "seed": "010", "minutes": "12:00", "k": "32", "hashes": "true"}
as_found = (
    file == {**in_file, "section": {**in_file, "k": 32, "hashes": True}}
    and line == {**on_line, "section": texts}
)
print("as the first lines say" if as_found else "not as the first lines say any more")
sys.exit(not as_found)
END
