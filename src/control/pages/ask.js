// How the operator's page asks the node: every request, every refusal, and the question before what cannot be undone.
import { byTest, clip, el, word } from "./base.js";

/** The node said no. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/**
 * The JSON that a path answers. The field marks this page: no page of another site can set it. The key stays in this page.
 * @throws {Refused} where the answer is no 200.
 */
export async function ask(path, method = "GET", body = undefined) {
  const headers = { "X-Fanfare-Console": "1" };
  const key = byTest("key").value.trim();
  if (key !== "") headers.Authorization = `Bearer ${key}`;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(10_000) });
  const text = await reply.text();
  let json = null;
  try { json = JSON.parse(text); } catch { /* a page, or nothing */ }
  if (reply.ok) return json;
  throw new Refused(reply.status, word(json?.error?.message) || clip(text.trim(), 300) || `status ${reply.status}`);
}

/** The API on this machine, or with a key. */
export const api = (path, method, body) => ask(`console/api/v1/${path}`, method, body === undefined ? undefined : JSON.stringify(body));

/** Says aloud what happened. */
export function speak(text) {
  byTest("spoken").textContent = text;
}

/** Runs what a form asks for, and shows how it ended beneath it. */
export function on(act, run) {
  const source = document.querySelector(`[data-act="${act}"]`);
  const isForm = source.tagName === "FORM";
  const form = isForm ? source : source.closest("form") ?? source.parentElement;
  source.addEventListener(isForm ? "submit" : "click", async (event) => {
    event.preventDefault();
    const button = isForm ? source.querySelector("button") : source;
    button.disabled = true;
    let said = "", bad = false;
    try {
      said = (await run()) ?? "";
    } catch (error) {
      [said, bad] = [error instanceof Error ? error.message : String(error), true];
      if (error instanceof Refused && error.status === 401) showKey(said);
    }
    button.disabled = false;
    let outcome = form.querySelector(":scope > .outcome");
    if (outcome === null) {
      outcome = el("p", "outcome");
      outcome.dataset.test = `${act}-outcome`;
      form.append(outcome);
    }
    outcome.textContent = said;
    outcome.classList.toggle("bad", bad);
    speak(said);
  });
}

/** Shows the field for the key, and what is wrong with the one in it. */
export function showKey(why) {
  byTest("key-form").hidden = false;
  if (byTest("key").value.trim() !== "") byTest("key-why").textContent = why;
}

/** Asks a person before what cannot be undone; whether they agree. */
export function agree(question, yes) {
  const dialog = byTest("ask");
  byTest("ask-text").textContent = question;
  byTest("ask-yes").textContent = yes;
  dialog.returnValue = "no";
  dialog.showModal();
  byTest("ask-no").focus();
  return new Promise((done) => dialog.addEventListener("close", () => done(dialog.returnValue === "yes"), { once: true }));
}

/** Fills a table: a head of names, and rows of texts, numbers or elements. The first cell of a row names it. */
export function fill(table, head, rows) {
  const names = el("tr");
  names.append(...head.map((name) => Object.assign(el("th", "", name), { scope: "col" })));
  table.tHead.replaceChildren(names);
  table.tBodies[0].replaceChildren(...rows.map((cells) => {
    const row = el("tr");
    row.append(...cells.map((cell, at) => {
      const e = at === 0 ? Object.assign(el("th"), { scope: "row" }) : el("td", typeof cell === "number" ? "num" : "");
      e.append(cell instanceof Node ? cell : el("bdi", "", String(cell)));
      return e;
    }));
    return row;
  }));
  table.hidden = false;
}
