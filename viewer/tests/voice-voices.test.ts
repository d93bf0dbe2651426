import assert from "node:assert/strict";
import { test } from "node:test";
import { choose, type Choice, type Person } from "../src/voice/voices.ts";

const NOBODY: Choice = { face: null, voice: null };

const person = (identity: string, rest: Partial<Person> = {}): Person => ({
  identity,
  isAgent: false,
  onBehalfOf: null,
  isSpeaking: false,
  hasVideo: false,
  hasAudio: false,
  ...rest,
});
const avatar = (identity: string, rest: Partial<Person> = {}): Person =>
  person(identity, { isAgent: true, onBehalfOf: "ada-agent", hasVideo: true, hasAudio: true, ...rest });
const agent = person("ada-agent", { isAgent: true, hasAudio: true, isSpeaking: true });

test("the avatar is seen and heard, and its agent is not heard", () => {
  assert.deepEqual(choose([agent, avatar("ada")], NOBODY), { face: "ada", voice: "ada" });
});

test("an avatar in a room of LiveAvatar's names no agent, and is known by its video", () => {
  const theirs = avatar("heygen", { onBehalfOf: null });
  assert.deepEqual(choose([agent, theirs], NOBODY), { face: "heygen", voice: "heygen" });
});

test("an avatar whose audio is still to come silences its agent too", () => {
  assert.deepEqual(choose([agent, avatar("ada", { hasAudio: false })], NOBODY), { face: "ada", voice: null });
});

test("an agent without an avatar speaks for itself", () => {
  assert.deepEqual(choose([person("bob", { hasAudio: true }), agent], NOBODY), { face: null, voice: "ada-agent" });
});

test("users are neither face nor voice", () => {
  assert.deepEqual(choose([person("bob", { hasVideo: true, hasAudio: true })], NOBODY), NOBODY);
});

test("of two avatars the one that speaks stays until it is silent and the other one speaks", () => {
  const before = { face: "ada", voice: "ada" };
  const [first, second] = [avatar("ada"), avatar("ada-2")];
  const speaking = (one: Person): Person => ({ ...one, isSpeaking: true });
  assert.deepEqual(choose([speaking(first), second], before), before);
  assert.deepEqual(choose([first, second], before), before);
  assert.deepEqual(choose([speaking(first), speaking(second)], before), before);
  assert.deepEqual(choose([first, speaking(second)], before), { face: "ada-2", voice: "ada-2" });
  assert.deepEqual(choose([second], before), { face: "ada-2", voice: "ada-2" });
});

test("never two voices, whoever is there", () => {
  const people = [agent, avatar("ada"), avatar("ada-2", { isSpeaking: true }), person("bob", { hasAudio: true })];
  for (const before of [NOBODY, { face: "ada", voice: "ada" }, { face: "gone", voice: "gone" }]) {
    const { face, voice } = choose(people, before);
    assert.equal(face, voice);
    assert.ok(voice === "ada" || voice === "ada-2");
  }
});
