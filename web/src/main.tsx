import { render } from 'preact';
import { App } from './app.tsx';
import { startFeed } from './feed.ts';
import './style.css';

startFeed();
render(<App />, document.getElementById('page')!);
