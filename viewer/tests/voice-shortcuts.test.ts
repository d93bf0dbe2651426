import assert from "node:assert/strict";
import { test } from "node:test";
import { action, type Press } from "../src/voice/shortcuts.ts";
import { microphoneTrouble } from "../src/voice/text.ts";

const press = (key: string, rest: Partial<Press> = {}): Press => ({
  key,
  modified: false,
  repeated: false,
  focus: "BODY",
  ...rest,
});

test("each key has its action, in either case", () => {
  assert.deepEqual(["m", "p", "c", "i", "P"].map((key) => action(press(key), true)), [
    "mute",
    "pause",
    "continue",
    "interrupt",
    "pause",
  ]);
  assert.equal(action(press("x"), true), null);
});

test("shortcuts can be turned off and leave other keys alone", () => {
  assert.equal(action(press("p"), false), null);
  assert.equal(action(press("p", { modified: true }), true), null);
  assert.equal(action(press("p", { repeated: true }), true), null);
  assert.equal(action(press("p", { focus: "select" }), true), null);
  assert.equal(action(press("p", { focus: "BUTTON" }), true), "pause");
});

test("each trouble with the microphone says what to do", () => {
  for (const name of ["NotAllowedError", "NotFoundError", "NotReadableError", "Insecure", "Ended", "AbortError"]) {
    assert.match(microphoneTrouble(name), /Allow|Connect|Close|Open|Press/);
  }
  assert.match(microphoneTrouble("AbortError"), /AbortError/);
});
