"""The demo as a Space of the Hub; the variable MODEL of the Space names another model than the embedded one."""

import os

from hf_models.visualize.demo import THEME, build_demo

demo = build_demo(os.environ.get("MODEL", "default"))

if __name__ == "__main__":
    demo.launch(theme=THEME)
