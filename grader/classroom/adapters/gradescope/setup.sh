#!/bin/sh
# Gradescope runs this once, as root, when it builds the autograder's image: everything that needs the
# network is fetched here, the lab VM is booted once, so that gradings start from its snapshot, and what all
# gradings share is compiled.
set -e
cd "${AUTOGRADER:-/autograder}/source"
chmod 700 .
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
sh kit/grader/setup.sh build grade vm
cd kit
python=$(sh grader/setup.sh --python)
"$python" -m grader.execution.labvm run -- /bin/true
make vmm LAB="$(cat ../lab)" SOLUTION=1
