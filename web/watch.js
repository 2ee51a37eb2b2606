// The stream of /v1/watch, read with fetch (EventSource cannot send a token) and started again when
// it ends, less and less often while divvyd is away.
import { failure, headers } from "./api.js";

const SHORTEST_MS = 500;
const LONGEST_MS = 10000;

async function* frames(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => {
        const colon = line.indexOf(": ");
        return [line.slice(0, colon), line.slice(colon + 2)];
      }));
      yield { type: fields.event, data: JSON.parse(fields.data) };
    }
  }
}

async function once(on) {
  const response = await fetch(`/v1/watch?interval_ms=1000&since=${on.since()}`, { headers: headers() });
  if (!response.ok) throw await failure(response);
  on.state("live");
  for await (const frame of frames(response)) on[frame.type]?.(frame.data);
}

export async function follow(on) {
  let pause = SHORTEST_MS;
  for (;;) {
    const began = Date.now();
    let problem = "";
    await once(on).catch((error) => { problem = error.message; });
    on.state("lost", problem);
    pause = Date.now() - began > LONGEST_MS ? SHORTEST_MS : Math.min(pause * 2, LONGEST_MS);
    await new Promise((wake) => setTimeout(wake, pause));
    await on.restarted().catch(() => {});
  }
}
