// What the console uses of Preact and htm, from one place.

import { Component, html } from "./vendor/htm/standalone.module.js";

export {
  html,
  render,
  useCallback,
  useEffect,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "./vendor/htm/standalone.module.js";

/** A component that is rendered anew only where one of its props has changed. */
export function memo(component) {
  return class extends Component {
    shouldComponentUpdate(next) {
      const names = new Set([...Object.keys(next), ...Object.keys(this.props)]);
      return [...names].some((name) => !Object.is(next[name], this.props[name]));
    }

    render(props) {
      return html`<${component} ...${props} />`;
    }
  };
}
