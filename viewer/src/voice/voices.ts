// Choice of the one face and the one voice of a room. Pure.
//
// An avatar publishes on behalf of an agent: user interfaces show both as one. So that never two voices are audible, the
// agent's own tracks are silent while an avatar is there, and of several avatars one is chosen.

/** Attribute that names the agent. Source: LiveKit Agents, `ATTRIBUTE_PUBLISH_ON_BEHALF`. */
export const ON_BEHALF = "lk.publish_on_behalf";

/** Remote participant, as far as the choice depends on it. */
export interface Person {
  identity: string;
  /** True for LiveKit's kind "agent", which avatars have too. */
  isAgent: boolean;
  /** Identity of the agent on whose behalf it publishes; null for others. */
  onBehalfOf: string | null;
  /** True while LiveKit hears it. */
  isSpeaking: boolean;
  hasVideo: boolean;
  hasAudio: boolean;
}

/** Identities of the participants that are seen and heard; null for none. */
export interface Choice {
  face: string | null;
  voice: string | null;
}

/**
 * Return who is to be seen and heard.
 *
 * @param people remote participants, in the order in which they joined
 * @param before the choice so far: it stays until that avatar leaves or is silent while another one speaks, so that the
 *   avatar that is about to be replaced finishes its sentence
 */
export function choose(people: readonly Person[], before: Choice): Choice {
  const avatars = people.filter((one) => one.onBehalfOf !== null || (one.isAgent && one.hasVideo));
  if (avatars.length === 0) {
    // An agent without an avatar speaks for itself.
    const agent = people.find((one) => one.isAgent && one.hasAudio);
    return { face: null, voice: agent?.identity ?? null };
  }
  const chosen = pick(avatars.filter((one) => one.hasAudio || one.hasVideo), before) ?? avatars[0];
  if (chosen === undefined) {
    return { face: null, voice: null };
  }
  const face = chosen.hasVideo ? chosen : avatars.findLast((one) => one.hasVideo);
  return { face: face?.identity ?? null, voice: chosen.hasAudio ? chosen.identity : null };
}

function pick(avatars: readonly Person[], before: Choice): Person | undefined {
  const current = avatars.find((one) => one.identity === (before.voice ?? before.face));
  const other = avatars.find((one) => one !== current && one.isSpeaking);
  return current === undefined || (other !== undefined && !current.isSpeaking)
    ? (other ?? avatars.at(-1))
    : current;
}
