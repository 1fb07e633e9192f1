/** An error that a person can do something about: what happened, and what to do. */
export class PageError extends Error {
  constructor(what, advice) {
    super(`${what} ${advice}`);
    this.what = what;
    this.advice = advice;
  }
}

/** The model's fault, not the page's or the server's. */
export class ModelError extends PageError {}
