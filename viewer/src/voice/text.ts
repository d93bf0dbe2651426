// Texts of the page about trouble: each says what to do.

/** Return the advice for a microphone that cannot be used. */
export function microphoneTrouble(name: string): string {
  switch (name) {
    case "NotAllowedError":
      return "The browser does not give this page the microphone. Allow it in the address bar, then press “Try the microphone again”.";
    case "NotFoundError":
    case "OverconstrainedError":
      return "No microphone was found. Connect one, then press “Try the microphone again”.";
    case "NotReadableError":
      return "Another program uses the microphone. Close it, then press “Try the microphone again”.";
    case "Insecure":
      return "Browsers give the microphone to pages on 127.0.0.1 and https only. Open the address that the demo printed.";
    case "Ended":
      return "The microphone was unplugged. Connect it, then press “Try the microphone again”.";
    default:
      return `The microphone cannot be used (${name}). Press “Try the microphone again”.`;
  }
}

/** Return the advice for a room that cannot be joined. */
export function roomTrouble(detail: string): string {
  return `The LiveKit server cannot be joined (${detail}). Is it running, and does a firewall or proxy stand between? This page keeps trying.`;
}

export const ELSEWHERE = "This conversation was opened in another tab. Close that tab, then reload this page.";
export const NO_TOKEN = "This address has no valid token. Open the address that the demo printed.";
export const GONE = "The demo does not respond. Is it still running? Start it with make demo-voice, then open the address that it prints.";
