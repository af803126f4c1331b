import type { DomainStatus } from '../../../core/peering/message.ts';
import type { SetupFailure, SetupKey, SetupState } from '../../../core/peering/resource-setups.ts';

/** What happens at one time: what each peer is sent and what is told of each name, in order. */
export interface Happenings {
  readonly sent: Readonly<Record<number, readonly string[]>>;
  readonly told: Readonly<Record<string, readonly string[]>>;
}

interface Name {
  readonly key: SetupKey;
  isAsked: boolean;
  wasConfirmed: boolean;
  answer: DomainStatus | 'no-answer';
  isFailureTold: boolean;
  messages: number;
  sentAt: number;
  /** Its place among those that wait for their turn; absent while it rests after a message. */
  turn: number | undefined;
  /** Its place among those that rest. */
  rest: number;
  packets: number[];
}

const INTERVAL = 2000;
const MESSAGES = 5;
const HELD = 32;
/** Each millisecond gives one, and a message takes 125: eight a second. */
const MOST_CREDIT = 1000;
const MESSAGE_COST = 125;

/** Set-ups by their rules alone: everything is looked at in each millisecond. */
export class NaiveSetups {
  #now = 0;
  #sequence = 0;
  #names: Name[] = [];
  readonly #credit = new Map<number, number>();
  #sent: Record<number, string[]> = {};
  #told: Record<string, string[]> = {};

  request(key: SetupKey): void {
    const name = this.#find(key) ?? this.#add(key);
    if (!name.isAsked) this.#ask(name);
    this.#send();
  }

  isHeld(key: SetupKey): boolean {
    const name = this.#find(key);
    return name === undefined || isHeld(name);
  }

  hold(key: SetupKey, packet: number): void {
    const name = this.#find(key) ?? this.#add(key);
    if (!isHeld(name)) {
      this.#tell(name, `released ${packet}`);
      return;
    }
    if (!name.isAsked) this.#ask(name);
    if (name.packets.length === 0 && name.turn !== undefined) name.turn = this.#sequence++;
    if (name.packets.length < HELD && !name.packets.includes(packet)) name.packets.push(packet);
    this.#send();
  }

  handleStatus(key: SetupKey, status: DomainStatus): void {
    const name = this.#find(key);
    if (name === undefined || (name.isAsked && name.messages === 0)) return;
    this.#answer(name, status);
  }

  handleUnreachable(key: SetupKey): boolean {
    const name = this.#find(key) ?? this.#add(key);
    if (name.isAsked) return true;
    if (this.#now - name.sentAt < INTERVAL) return false;
    this.#ask(name);
    this.#send();
    return name.answer === 'active' || name.answer === 'no-answer';
  }

  handlePeerLost(peer: number): void {
    for (const name of this.#names.filter(({ key }) => key.peer === peer)) {
      if (name.isAsked) name.messages = 0;
      else if (name.wasConfirmed) this.#ask(name);
    }
    this.#send();
  }

  removeWhere(predicate: (key: SetupKey) => boolean): void {
    this.#names = this.#names.filter(({ key }) => !predicate(key));
    for (const peer of this.#credit.keys()) {
      if (!this.#names.some(({ key }) => key.peer === peer)) this.#credit.delete(peer);
    }
  }

  /** Lets one millisecond pass. */
  tick(): void {
    this.#now++;
    for (const [peer, credit] of this.#credit) {
      this.#credit.set(peer, Math.min(MOST_CREDIT, credit + 1));
    }
    const rested = this.#names.filter(
      ({ isAsked, turn, sentAt }) =>
        isAsked && turn === undefined && sentAt + INTERVAL === this.#now,
    );
    for (const name of rested.sort((a, b) => a.rest - b.rest)) {
      if (name.messages >= MESSAGES) this.#answer(name, 'no-answer');
      else name.turn = this.#sequence++;
    }
    this.#send();
  }

  /** When something will happen by itself. */
  next(): number | undefined {
    const times = this.#names
      .filter(({ isAsked }) => isAsked)
      .map(({ key, turn, sentAt }) =>
        turn === undefined
          ? sentAt + INTERVAL
          : this.#now + MESSAGE_COST - (this.#credit.get(key.peer) ?? 0),
      );
    return times.length === 0 ? undefined : Math.min(...times);
  }

  statuses(): readonly string[] {
    return this.#names.map((name) => `${text(name.key)} ${stateOf(name)} ${whyOf(name) ?? ''}`);
  }

  takeHappenings(): Happenings {
    const happenings = { sent: this.#sent, told: this.#told };
    this.#sent = {};
    this.#told = {};
    return happenings;
  }

  #find(key: SetupKey): Name | undefined {
    return this.#names.find((name) => text(name.key) === text(key));
  }

  #add(key: SetupKey): Name {
    const name: Name = {
      key,
      isAsked: false,
      wasConfirmed: false,
      answer: 'no-answer',
      isFailureTold: false,
      messages: 0,
      sentAt: -Infinity,
      turn: undefined,
      rest: 0,
      packets: [],
    };
    this.#names.push(name);
    if (!this.#credit.has(key.peer)) this.#credit.set(key.peer, MOST_CREDIT);
    return name;
  }

  #ask(name: Name): void {
    name.isAsked = true;
    name.messages = 0;
    name.turn = this.#now - name.sentAt < INTERVAL ? undefined : this.#sequence++;
    name.rest = this.#sequence++;
  }

  #answer(name: Name, answer: Name['answer']): void {
    const wasHeld = isHeld(name);
    name.isAsked = false;
    name.turn = undefined;
    name.answer = answer;
    name.wasConfirmed ||= answer === 'active';
    const packets = name.packets;
    name.packets = [];
    if (wasHeld && !isHeld(name)) this.#tell(name, `released ${packets.join()}`);
    if (answer === 'active') name.isFailureTold = false;
    else if (!name.isFailureTold) {
      name.isFailureTold = true;
      this.#tell(name, `failed ${answer}`);
    }
  }

  #tell({ key }: Name, what: string): void {
    (this.#told[text(key)] ??= []).push(what);
  }

  #send(): void {
    for (;;) {
      const name = this.#names
        .filter(
          ({ key, turn }) =>
            turn !== undefined && (this.#credit.get(key.peer) ?? 0) >= MESSAGE_COST,
        )
        .sort(
          (a, b) =>
            Number(b.packets.length > 0) - Number(a.packets.length > 0) ||
            (a.turn ?? 0) - (b.turn ?? 0),
        )[0];
      if (name === undefined) return;
      const { peer } = name.key;
      this.#credit.set(peer, (this.#credit.get(peer) ?? 0) - MESSAGE_COST);
      name.turn = undefined;
      name.messages++;
      name.sentAt = this.#now;
      name.rest = this.#sequence++;
      (this.#sent[peer] ??= []).push(text(name.key));
    }
  }
}

export function text({ peer, resource, domain }: SetupKey): string {
  return `${peer}/${resource}/${domain}`;
}

function isHeld({ wasConfirmed, isAsked, answer }: Name): boolean {
  return !wasConfirmed && (isAsked || answer === 'no-answer');
}

function stateOf({ wasConfirmed, isAsked, answer }: Name): SetupState {
  if (isAsked) return wasConfirmed ? 'recreating' : 'pending';
  return answer === 'active' ? 'confirmed' : 'failed';
}

function whyOf({ isAsked, answer }: Name): SetupFailure | undefined {
  return isAsked || answer === 'active' ? undefined : answer;
}
