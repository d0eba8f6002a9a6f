/** The messages of the protocol. This file holds only types. */

export interface Frame<Type extends string, Payload> {
    type: Type;
    payload: Payload;
}

export interface RegisterPayload {
    resumable?: boolean;
    receipts?: boolean;
    resume_token?: string | undefined;
    access_token?: string | undefined;
    accept?: "anyone" | "correspondents" | undefined;
}

export interface Limits {
    message_bytes: number;
    messages_per_minute: number;
    burst: number;
    control_per_minute: number;
    queue_messages: number;
    queue_bytes: number;
    max_ttl: number;
    default_ttl: number;
    window: number;
}

export interface RegisterResponsePayload {
    device_id: string;
    resumable: boolean;
    resume_token: string;
    resumed: boolean;
    queued: number;
    session_ttl: number;
    limits: Limits;
}

export interface MessagePayload {
    recipient_id: string;
    sender_id: string;
    message_id: string;
    encrypted_data: string;
    /** Any JSON may stand in these: the relay carries them unseen. */
    signature?: unknown;
    ttl?: unknown;
    content_type?: unknown;
    [field: string]: unknown;
}

/** An acknowledgement that leaves: this device has the message. */
export interface ConfirmPayload {
    message_id: string;
    sender_id: string;
}

/** An acknowledgement that arrives: the relay has the message, or its recipient. */
export interface AckPayload {
    message_id: string;
    status?: "queued" | "delivered" | "processed";
    expires_at?: number;
}

export type KeyId = string | number;

export interface ErrorPayload {
    code: number;
    message: string;
    message_id?: string;
    key_id?: KeyId;
    recipient_id?: string;
    retry_after_ms?: number;
    limit?: number | string;
}

export interface AuthRequestPayload {
    device_id: string;
    recipient_id?: string;
    public_key: string;
    challenge: string;
}

export interface AuthResponsePayload {
    device_id: string;
    recipient_id?: string;
    challenge_response: string;
    challenge: string;
}

export interface AuthVerifyPayload {
    device_id: string;
    recipient_id?: string;
    challenge_response: string;
}

export interface AuthSuccessPayload {
    device_id: string;
    trusted: boolean;
    sender_id?: string;
    recipient_id?: string;
}

export interface KeyRotationUpdatePayload {
    sender_id: string;
    recipient_id: string;
    encrypted_key_package: string;
    key_id: KeyId;
}

export interface KeyRotationAckPayload {
    sender_id: string;
    recipient_id: string;
    key_id: KeyId;
    success: boolean;
}

export interface StatusPayload {
    device_id: string;
    status: "Online" | "Away" | "Offline";
}

interface Bare<Type extends string> {
    type: Type;
}

/** What two devices say to each other and the relay carries as it came. */
export type RelayedFrame =
    | Frame<"AuthRequest", AuthRequestPayload>
    | Frame<"AuthResponse", AuthResponsePayload>
    | Frame<"AuthVerify", AuthVerifyPayload>
    | Frame<"AuthSuccess", AuthSuccessPayload>
    | Frame<"KeyRotationUpdate", KeyRotationUpdatePayload>
    | Frame<"KeyRotationAck", KeyRotationAckPayload>;

export type ClientFrame =
    | Frame<"Register", RegisterPayload>
    | Frame<"Send", MessagePayload>
    | Frame<"Ack", ConfirmPayload>
    | Frame<"Status", StatusPayload>
    | RelayedFrame
    | Bare<"Unregister">
    | Bare<"Ping">
    | Bare<"Pong">;

export type ServerFrame =
    | Frame<"RegisterResponse", RegisterResponsePayload>
    | Frame<"Receive", MessagePayload>
    | Frame<"Ack", AckPayload>
    | Frame<"Error", ErrorPayload>
    | RelayedFrame
    | Bare<"Ping">
    | Bare<"Pong">;
