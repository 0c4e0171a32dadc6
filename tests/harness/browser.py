"""A page in a real browser: what it shows, what it asks the network for, and how it looks."""

import base64
import json
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
BROWSER, DRIVER = "chromium", "chromedriver"
WIDTHS, SCHEMES = (390, 1440), ("light", "dark")
FIGURES = """
return Object.fromEntries([...document.querySelectorAll(".figure")].map((figure) => [figure.id.replace("figure-", ""),
  figure.querySelectorAll(".point, .scatterlayer path, .heatmaplayer image, .sankey-node, .hm image").length]))
"""


def installed() -> bool:
    return bool(shutil.which(BROWSER) and shutil.which(DRIVER))


class Browser:
    def __init__(self, profile: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(shutil.which(BROWSER))
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which(DRIVER)))

    def open(self, page: Path, width: int = 1440, scheme: str = "light") -> None:
        """Opens a page and waits until its figures are drawn."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        self.driver.get(page.as_uri())
        self.until("document.documentElement.dataset.drawn === 'true'")

    def until(self, condition: str) -> None:
        WebDriverWait(self.driver, 30, 0.05).until(lambda driver: driver.execute_script(f"return {condition}"))

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """The console's messages since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The URLs that pages requested since the last call, without those of the browser's own tab."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = (one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent")
        return [url for url in sent if not url.startswith(("data:", "blob:", "chrome:", "chrome-untrusted:", "about:"))]

    def screenshot(self, path: Path) -> None:
        """Writes an image of the whole page."""
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(taken["data"]))

    def hover(self, selector: str, index: int = 0) -> None:
        """Moves the mouse over the middle of an element."""
        x, y = self.ask(
            "const box = document.querySelectorAll(arguments[0])[arguments[1]];"
            "box.scrollIntoView({block: 'center', behavior: 'instant'});"
            "const at = box.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]",
            selector,
            index,
        )
        for offset in (0, 1):  # plotly listens to movement
            move = {"type": "mouseMoved", "x": x + offset, "y": y}
            self.driver.execute_cdp_cmd("Input.dispatchMouseEvent", move)

    def press(self, key: str, times: int = 1) -> None:
        codes = {"Tab": 9, "Enter": 13, "ArrowLeft": 37, "ArrowRight": 39}
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
                self.driver.execute_cdp_cmd("Input.dispatchKeyEvent", event)

    def close(self) -> None:
        self.driver.quit()
