# A tunnel for as long as this program runs, however it ends: python3 program.py [port]

import json
import sys
from subprocess import PIPE, Popen

port = sys.argv[1] if len(sys.argv) > 1 else "8080"
try:
    tunnel = Popen(["tunnel", "-ij", port], stdin=PIPE, stdout=PIPE, stderr=PIPE, text=True)
except FileNotFoundError:
    print("tunnel is not installed", file=sys.stderr)
    sys.exit(127)
record = tunnel.stdout.readline()
if not record:
    said = tunnel.communicate()[1].splitlines() or [""]
    print(f"no tunnel, status {tunnel.returncode}: {said[-1]}", file=sys.stderr)
    sys.exit(tunnel.returncode)
url = json.loads(record)["url"]

print(url, flush=True)
sys.stdin.read()  # what the program does

tunnel.communicate()  # closes its input and waits
