import assert from "node:assert/strict";
import { test } from "node:test";

import { credentials } from "../src/emulator.ts";

test("the control token comes from the fragment, which browsers send to no server", () => {
  assert.deepEqual(credentials("#token=abc-_123"), { Authorization: "Bearer abc-_123" });
});

test("without a token there is no credential", () => {
  assert.deepEqual(credentials(""), {});
  assert.deepEqual(credentials("#session=1"), {});
});
