#!/usr/bin/env bash
# pyvips opens the old picture of a file that was written anew under the same name.
#
# Expected: new_from_file reads the file that is there. Seen: libvips keeps opened files in a cache of operations by
# name, whatever the date and size of the file say; the second picture has the first one's pixels and its size.
# revalidate=True reads anew.
# Who meets it: servers and pipelines that write each upload to one temporary name, tests, loops over augmentations.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
  pyvips[binary]==3.2.0 pyvips-binary==8.18.7 pillow==13.0.0 numpy==2.4.6
cd "$folder"
venv/bin/python - <<'PYTHON'
import pyvips
from PIL import Image

seen = []
for colour, side in (((255, 0, 0), 4), ((0, 255, 0), 8)):
    Image.new("RGB", (side, side), colour).save("photo.png")
    image = pyvips.Image.new_from_file("photo.png")
    seen.append((image.numpy()[0, 0].tolist(), image.width))
anew = pyvips.Image.new_from_file("photo.png", revalidate=True)
print("pyvips", pyvips.__version__, "libvips", ".".join(str(pyvips.version(part)) for part in range(3)))
print("expected: red of 4 pixels, then green of 8")
print("seen:", seen, "and with revalidate", anew.numpy()[0, 0].tolist(), anew.width)
assert seen == [([255, 0, 0], 4)] * 2 and anew.width == 8, "files are read anew"
PYTHON
