"use strict";
// Search over all handouts, without a server; the menu; light and dark.
(function () {
    const input = document.getElementById("search");
    const results = document.getElementById("results");
    const menu = document.getElementById("menu");
    const root = document.documentElement;

    function snippet(text, word) {
        const at = Math.max(0, text.toLowerCase().indexOf(word) - 50);
        return (at ? "…" : "") + text.slice(at, at + 140) + "…";
    }

    function rank(entry, words) {
        const title = entry.t.toLowerCase(), text = entry.x.toLowerCase();
        let sum = 0;
        for (const word of words) {
            const count = text.split(word).length - 1;
            if (!count && !title.includes(word)) return 0;
            sum += Math.min(count, 5) + (title.includes(word) ? 10 : 0);
        }
        return sum;
    }

    function search() {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        results.textContent = "";
        results.hidden = !words.length;
        if (!words.length) return;
        const found = searchIndex.map(entry => [rank(entry, words), entry]).filter(pair => pair[0])
            .sort((a, b) => b[0] - a[0]).slice(0, 12);
        for (const [, entry] of found) {
            const link = document.createElement("a");
            link.href = entry.u;
            link.setAttribute("role", "option");
            const title = document.createElement("b");
            title.textContent = entry.t;
            const page = document.createElement("small");
            page.textContent = entry.p === entry.t ? "" : " " + entry.p;
            const text = document.createElement("span");
            text.textContent = snippet(entry.x, words[0]);
            link.append(title, page, text);
            results.append(link);
        }
        if (!found.length) results.textContent = "Nothing found.";
    }

    input.addEventListener("input", search);
    input.addEventListener("keydown", event => {
        const first = results.querySelector("a");
        if (event.key === "Enter" && first) location.href = first.href;
        if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
        if (event.key === "Escape") { input.value = ""; search(); input.blur(); }
    });
    results.addEventListener("keydown", event => {
        const step = {ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling"}[event.key];
        if (event.key === "Escape") input.focus();
        if (!step) return;
        event.preventDefault();
        (document.activeElement[step] || input).focus();
    });
    results.addEventListener("click", () => { results.hidden = true; });
    document.addEventListener("click", event => {
        if (!event.target.closest(".search")) results.hidden = true;
    });
    document.addEventListener("keydown", event => {
        if (event.key === "/" && document.activeElement !== input) { event.preventDefault(); input.focus(); }
    });

    const wide = matchMedia("(min-width: 60rem)");
    function fold() { menu.open = wide.matches; }
    fold();
    wide.addEventListener("change", fold);
    menu.addEventListener("click", event => {
        if (event.target.matches("a") && !wide.matches) menu.open = false;
    });

    document.getElementById("theme").addEventListener("click", () => {
        const dark = root.dataset.theme ? root.dataset.theme === "dark"
            : matchMedia("(prefers-color-scheme: dark)").matches;
        root.dataset.theme = dark ? "light" : "dark";
        localStorage.setItem("theme", root.dataset.theme);
    });
})();
