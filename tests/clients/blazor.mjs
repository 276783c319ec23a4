// Visitors of a Blazor Server page in Chromium: node blazor.mjs '{"program": "/usr/bin/chromium", "url": "http://…", …}'
import { receive, Visit } from './visits.mjs';

await receive(Visit);
