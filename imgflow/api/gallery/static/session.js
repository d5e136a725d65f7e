// Who is signed in, and requests that say what went wrong in words.

export const root = document.documentElement.dataset.root;

let scopes = new Set(document.documentElement.dataset.scopes.split(" ").filter(Boolean));
let refusals = 0;

/** A refusal of the API, as its problem details say it. */
export class Problem extends Error {
  constructor(status, problem) {
    super([problem.title, problem.detail].filter(Boolean).join(". ").replaceAll("..", "."));
    this.status = status;
    this.code = problem.code ?? "";
  }
}

/** The problem of an answer's text; proxies in between may answer with pages of their own. */
export function problemOf(status, text) {
  if (status === 401) { // the session has ended meanwhile
    refusals += 1;
    scopes.delete("write");
  }
  try {
    return new Problem(status, JSON.parse(text));
  } catch {
    return new Problem(status, { title: `The server answered ${status}` });
  }
}

/** Ask the API; throws a `Problem` when it refuses. */
export async function ask(path, options = {}) {
  const answer = await fetch(root + path, options);
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
  return answer;
}

export const may = (scope) => scopes.has(scope);

/** Ask again what the caller may do: the session may have begun in another tab, or ended. */
export async function refresh() {
  for (;;) {
    const before = refusals;
    const answer = await fetch(`${root}/session`);
    const found = await answer.text();
    if (!answer.ok && answer.status !== 401) throw problemOf(answer.status, found);
    if (refusals !== before) continue; // a request was refused meanwhile, and this may be older
    scopes = new Set(answer.ok ? JSON.parse(found).scopes : []); // 401: there is no session
    return scopes;
  }
}

/** Begin a session; the cookie is out of reach of scripts. */
export async function begin(token) {
  await ask("/session", { method: "POST", headers: { Authorization: `Bearer ${token}` } });
  await refresh();
}

export async function end() {
  await ask("/session", { method: "DELETE" });
}

/** Tell those who do not see the page; the pause lets screen readers notice a repetition. */
export function say(text) {
  const live = document.getElementById("live");
  live.textContent = "";
  setTimeout(() => { live.textContent = text; }, 50);
}
