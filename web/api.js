// Requests to divvyd. On TCP they carry the token, which came in the address after '#' (never sent to
// a server) or was typed in; it is kept for this tab alone.
const KEY = "divvy-token";

const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  sessionStorage.setItem(KEY, given);
  history.replaceState(null, "", location.pathname);
}

export function setToken(token) {
  sessionStorage.setItem(KEY, token);
}

export function headers() {
  const token = sessionStorage.getItem(KEY);
  return token ? { Authorization: `Bearer ${token}` } : {};
}

export class RequestError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function failure(response) {
  const body = await response.json().catch(() => ({}));
  return new RequestError(response.status, body.error?.message ?? `HTTP ${response.status}`);
}

export async function request(method, path, body) {
  const response = await fetch(path, {
    method,
    headers: { ...headers(), ...(body ? { "Content-Type": "application/json" } : {}) },
    body: body ? JSON.stringify(body) : undefined,
  });
  if (!response.ok) throw await failure(response);
  return response.json();
}

// Rejects with status 401 when a token is needed and there is none, or it is wrong.
export function authorize() {
  return request("GET", "/v1/status");
}
