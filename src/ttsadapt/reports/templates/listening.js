"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const words = page.words;
  const stage = document.getElementById("stage");
  const slot = `ttsadapt.listening.${page.id}`;

  // ---- what is kept in this browser -----------------------------------------------------------------------------------------------
  let keeps = true;
  const load = () => {
    try { return JSON.parse(localStorage.getItem(slot)); } catch { return null; }
  };
  const keep = () => {
    try { localStorage.setItem(slot, JSON.stringify(state)); keeps = true; } catch { keeps = false; }
  };
  let state = load();

  // ---- who hears what, in which order ---------------------------------------------------------------------------------------------
  const fnv = (text) => { // 64-bit FNV-1a of UTF-8
    let value = 0xcbf29ce484222325n;
    for (const byte of new TextEncoder().encode(text)) value = BigInt.asUintN(64, (value ^ BigInt(byte)) * 0x100000001b3n);
    return value;
  };
  const sheetOf = (listener) => {
    const number = /^[0-9]+$/.test(listener) ? BigInt(listener) : 0n;
    return Number((number > 0n ? number - 1n : fnv(listener)) % BigInt(page.sheets.length));
  };
  const random = (seed) => () => { // mulberry32
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const order = (listener) => {
    const draw = random(Number(fnv(`${page.id}|${listener}`) & 0xffffffffn));
    const sheet = page.sheets[sheetOf(listener)];
    const list = sheet.filter((code) => !page.trials[code].after);
    for (let i = list.length - 1; i > 0; i--) {
      const j = Math.floor(draw() * (i + 1));
      [list[i], list[j]] = [list[j], list[i]];
    }
    for (let i = 1; i < list.length; i++) { // not one sentence twice in a row, where it can be helped
      const same = (code) => page.trials[code].sentence === page.trials[list[i - 1]].sentence;
      const j = same(list[i]) ? list.findIndex((code, k) => k > i && !same(code)) : -1;
      if (j > 0) [list[i], list[j]] = [list[j], list[i]];
    }
    for (const code of sheet.filter((c) => page.trials[c].after)) { // what is heard again comes late enough to be forgotten
      const first = Math.min(list.length, list.indexOf(page.trials[code].after) + 6);
      list.splice(first + Math.floor(draw() * (list.length - first + 1)), 0, code);
    }
    return list;
  };

  // ---- building screens -----------------------------------------------------------------------------------------------------------
  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };
  const paragraphs = (texts) => texts.map((text) => make("p", {}, text));
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
  const where = (text, share) => {
    document.getElementById("where").textContent = text;
    const bar = document.getElementById("progress");
    bar.hidden = share === null;
    bar.value = share ?? 0;
    bar.setAttribute("aria-label", text);
  };
  let keys = () => {};
  document.addEventListener("keydown", (event) => {
    const typing = event.target.matches?.("input[type=text], select");
    if (!typing && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat) keys(event);
  });
  let heard = []; // the players of the screen that is shown
  const show = (title, ...children) => {
    for (const player of heard) player.close();
    heard = [];
    keys = () => {};
    const heading = make("h1", { tabIndex: -1 }, title);
    stage.replaceChildren(...(title ? [heading] : []), ...children);
    if (!keeps) stage.prepend(make("div", { className: "notice bad", role: "status" }, make("p", {}, words.forgetful)));
    scrollTo(0, 0);
    if (title) heading.focus({ preventScroll: true });
  };
  const once = (element, action) => element.addEventListener("click", (event) => { if (event.detail < 2) action(); }); // not for the second of two quick clicks
  const button = (text, action, className = "go") => {
    const made = make("button", { type: "button", className }, text);
    once(made, action);
    return made;
  };

  // ---- clips ----------------------------------------------------------------------------------------------------------------------
  const players = (clips, onHeard) => { // [[name, code]]; one at a time; heard when played from the beginning to the end
    const made = clips.map(([name, code]) => {
      const bytes = Uint8Array.from(atob(page.audio[code]), (c) => c.charCodeAt(0));
      const url = URL.createObjectURL(new Blob([bytes], { type: page.mime }));
      const audio = new Audio(url);
      const label = words.clips[name];
      const sign = make("span", { className: "sign", ariaHidden: "true" }, "▶");
      const does = make("span", {}, words.play);
      const bar = make("span", { className: "bar" });
      const element = make("button", { type: "button", className: "player" }, make("span", { className: "name" }, label),
        make("span", { className: "does" }, sign, does), bar);
      const player = { name, element, plays: 0 };
      const draw = () => {
        const playing = !audio.paused && !audio.ended;
        sign.textContent = playing ? "■" : player.plays ? "✓" : "▶";
        does.textContent = playing ? words.stop : player.plays ? words.heard : words.play;
        element.classList.toggle("heard", player.plays > 0 && !playing);
        bar.style.transform = `scaleX(${playing && audio.duration ? audio.currentTime / audio.duration : 0})`;
        if (playing) requestAnimationFrame(draw);
      };
      player.toggle = () => {
        const stop = !audio.paused && !audio.ended;
        for (const other of made) other.stop();
        if (!stop) audio.play().then(draw, failed);
      };
      player.stop = () => {
        audio.pause();
        audio.currentTime = 0;
        draw();
      };
      player.close = () => {
        audio.pause();
        URL.revokeObjectURL(url);
      };
      const failed = (error) => {
        if (error?.name === "AbortError" || !element.isConnected) return;
        if (!stage.querySelector(".unplayable")) stage.append(make("div", { className: "notice bad unplayable", role: "alert" }, make("p", {}, words.unplayable)));
      };
      audio.addEventListener("error", () => failed(audio.error));
      audio.addEventListener("ended", () => {
        let covered = 0;
        for (let i = 0; i < audio.played.length; i++) covered += audio.played.end(i) - audio.played.start(i);
        if (covered >= 0.9 * audio.duration) player.plays += 1;
        draw();
        onHeard(made);
      });
      once(element, player.toggle);
      return player;
    });
    return made;
  };

  // ---- the screens in turn --------------------------------------------------------------------------------------------------------
  const welcome = () => {
    where("", null);
    const id = (name) => `field-${name}`;
    const code = make("input", { type: "text", id: id("code"), name: "code", required: true, maxLength: 60, autocomplete: "off" });
    code.value = new URLSearchParams(location.search).get("listener") ?? "";
    const field = (name, label, input, help = "") => make("div", { className: "field" }, make("label", { htmlFor: id(name) }, label), input,
      ...(help ? [make("small", {}, help)] : []));
    const questions = page.questions.map((question) => {
      const common = { id: id(question.id), name: question.id, required: true };
      const input = question.options?.length
        ? make("select", common, make("option", { value: "" }, "–"), ...question.options.map((o) => make("option", { value: String(o) }, String(o))))
        : make("input", { ...common, type: "text", maxLength: 200 });
      return [question, input];
    });
    const agree = make("input", { type: "checkbox", required: true, id: id("agree") });
    const form = make("form", {}, field("code", words.code, code, words.code_help),
      ...questions.map(([question, input]) => field(question.id, question.label, input)),
      make("label", { className: "agree", htmlFor: id("agree") }, agree, make("span", {}, words.agree)), make("button", { className: "go" }, words.begin));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const listener = code.value.trim();
      if (!listener) return code.focus();
      state = {
        listener, started: new Date().toISOString(), stage: "sound", practised: [], done: [],
        questions: Object.fromEntries(questions.map(([question, input]) => [`q:${question.id}`, input.value.trim()])),
      };
      keep();
      go();
    });
    show(page.title, ...paragraphs(page.consent), form);
  };

  const next = (name) => {
    state.stage = name;
    keep();
    go();
  };

  const sound = () => {
    where("", null);
    const ready = button(words.sound_done, () => next("training"));
    ready.disabled = true;
    const code = page.training[0] ?? page.sheets[0][0];
    const clip = page.trials[code].clips.at(-1);
    const [player] = players([["sample", clip[1]]], () => { ready.disabled = false; });
    show(words.sound_title, make("p", {}, words.sound), make("div", { className: "players" }, player.element), ready);
    heard = [player];
  };

  const between = (title, text, label, action) => {
    where("", null);
    show(title, ...paragraphs(text), button(label, action));
    keys = (event) => { if (event.key === "Enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); action(); } };
  };

  const scores = page.answers.every(([value]) => /^-?[0-9]$/.test(value)); // then the key of an answer is its score, else its place
  const keyOf = (i) => scores ? page.answers[i][0] : String(i + 1);
  const signs = page.answers.map((_, i) => keyOf(i).replace("-", "−"));

  const trial = (code, label, share, done) => {
    const asked = page.trials[code];
    const begun = performance.now();
    const first = make("p", { className: "first", role: "status" }, words.heard_first);
    const answers = page.answers.map(([value, text], i) => {
      const input = make("input", { type: "radio", name: "answer", value, disabled: true });
      return { input, element: make("label", { className: "answer" }, input, make("span", {}, text), make("kbd", { ariaHidden: "true" }, signs[i])) };
    });
    const on = button(words.next, () => finish());
    on.disabled = true;
    const made = players(asked.clips, (all) => {
      if (!all.every((p) => p.plays)) return;
      for (const { input } of answers) input.disabled = false;
      first.textContent = "";
    });
    const finish = () => {
      const chosen = answers.find(({ input }) => input.checked);
      if (chosen && !chosen.input.disabled) {
        done({ trial: code, answer: chosen.input.value, plays: made.map((p) => p.plays), ms: Math.round(performance.now() - begun) });
      }
    };
    const list = make("fieldset", { className: "answers" }, make("legend", {}, asked.question), ...answers.map((a) => a.element));
    list.addEventListener("change", () => { on.disabled = false; });
    where(label, share);
    const letters = made.length === 1 ? ["P"] : made.map((p) => words.clips[p.name].split(" ").at(-1)[0].toUpperCase());
    const help = fill(words.keys, { play: letters.join(" "), answers: signs.join(" ") });
    show("", ...(asked.text ? [make("p", { className: "said" }, make("q", {}, asked.text))] : []),
      make("div", { className: "players" }, ...made.map((p) => p.element)), first, list, on, make("p", { className: "foot keys" }, help));
    heard = made;
    made[0].element.focus({ preventScroll: true });
    let minus = ""; // of a score below 0, which takes two keys
    keys = (event) => {
      const player = letters.indexOf(event.key.toUpperCase());
      const answer = answers[answers.findIndex((_, i) => keyOf(i) === minus + event.key)];
      minus = event.key === "-" ? "-" : "";
      if (player >= 0) made[player].toggle();
      else if (answer && !answer.input.disabled) {
        answer.input.checked = true;
        answer.input.focus();
        on.disabled = false;
      } else if (event.key === "Enter" && !on.disabled && event.target.tagName !== "BUTTON") {
        event.preventDefault();
        finish();
      }
    };
  };

  const training = () => {
    const n = state.practised.length;
    if (n >= page.training.length) return next("break");
    if (n === 0 && !state.instructed) {
      return between(page.title, [...page.instructions, `${words.training_title}. ${words.training}`], words.training_start, () => {
        state.instructed = true;
        keep();
        go();
      });
    }
    trial(page.training[n], `${words.practice} · ${fill(words.trial, { n: n + 1, all: page.training.length })}`, null, (answer) => {
      state.practised.push(answer);
      keep();
      go();
    });
  };

  const main = () => {
    const list = order(state.listener);
    const n = state.done.length;
    if (n >= list.length) {
      state.finished = new Date().toISOString();
      return next("end");
    }
    trial(list[n], fill(words.trial, { n: n + 1, all: list.length }), n / list.length, (answer) => {
      state.done.push(answer);
      keep();
      go();
    });
  };

  const result = () => {
    const body = {
      page: page.id, listener: state.listener, sheet: sheetOf(state.listener), started: state.started, finished: state.finished,
      questions: state.questions,
      trials: [...state.practised, ...state.done],
    };
    return JSON.stringify({ body, checksum: fnv(JSON.stringify(body)).toString(16).padStart(16, "0") });
  };

  const end = () => {
    where("", 1);
    const save = () => {
      const url = URL.createObjectURL(new Blob([result()], { type: "application/json" }));
      const name = `${page.id}-${state.listener.replace(/[^\w-]+/g, "_")}.json`;
      make("a", { href: url, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(url), 60000);
    };
    const told = make("p", {});
    const retry = button(words.send, () => send(), "plain");
    retry.hidden = true;
    const mine = state;
    const send = async () => {
      told.textContent = words.sending;
      retry.hidden = true;
      try {
        const answer = await fetch(page.post, { method: "POST", body: result() }); // plain text: no preflight
        if (!answer.ok) throw new Error(String(answer.status));
        told.textContent = words.sent;
        mine.sent = true;
        if (state === mine) keep(); // not when somebody else has begun meanwhile
      } catch {
        told.textContent = words.not_sent;
        retry.hidden = false;
      }
    };
    const sending = page.post ? [make("div", { className: "notice", role: "status" }, told, retry)] : [];
    show(words.finished_title, make("p", {}, words.finished), ...sending, button(words.save, save), make("p", { className: "foot" }, other()));
    if (page.post && state.sent) told.textContent = words.sent;
    else if (page.post) send();
  };

  const other = () => button(words.other, () => {
    if (!confirm(words.other_sure)) return;
    state = null;
    try { localStorage.removeItem(slot); } catch { /* nothing was kept */ }
    welcome();
  }, "plain");

  const screens = {
    sound, training, main, end,
    break: () => between(words.main_title, [...(state.instructed ? [] : page.instructions), words.main], words.main_start, () => next("main")),
  };
  const go = () => screens[state.stage]();

  addEventListener("storage", (event) => { // two tabs would write over each other's answers: the one used last goes on
    if (event.key !== slot) return;
    show(words.elsewhere_title, make("p", {}, words.elsewhere), button(words.here, () => location.reload()));
  });
  addEventListener("pageshow", (event) => { // back to a page that the browser has kept as it was, though answers may have been given since
    if (event.persisted && keeps) location.reload();
  });
  addEventListener("beforeunload", (event) => {
    if (!keeps && state) event.preventDefault();
  });

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  if (!state || !screens[state.stage]) {
    welcome();
  } else {
    go();
    if (state.stage !== "end") {
      stage.prepend(make("div", { className: "notice", role: "status" }, make("p", {}, fill(words.resumed, { listener: state.listener }), " ", other())));
    }
  }
})();
