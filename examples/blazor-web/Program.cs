using BlazorWeb;
using BlazorWeb.Components;
using Microsoft.AspNetCore.DataProtection;

var builder = WebApplication.CreateBuilder(new WebApplicationOptions
{
    Args = args,
    // The app may be started from any folder.
    ContentRootPath = AppContext.BaseDirectory,
});

// blazor.web.js is a static asset; without this only Development finds it unpublished.
builder.WebHost.UseStaticWebAssets();

// The framework's request log would hold the query, and with it the secret connection id.
builder.Logging.AddFilter("Microsoft.AspNetCore", LogLevel.Warning);

builder.Services.AddRazorComponents()
    .AddInteractiveServerComponents();

// The page carries what its circuit starts from, encrypted: any pod must be able to read what another wrote.
var protection = builder.Services.AddDataProtection().SetApplicationName("blazor-web");
if (Pod.Variable("DATA_PROTECTION_KEYS") is { } keys)
{
    protection.PersistKeysToFileSystem(new DirectoryInfo(keys));
}

var app = builder.Build();

app.Use((context, next) =>
{
    context.Response.Headers["x-pod"] = Pod.Name;
    return next(context);
});
if (Pod.Variable("REQUEST_LOG") is { } file)
{
    app.UseRequestLog(file);
}

app.UseStatusCodePagesWithReExecute("/not-found", createScopeForStatusCodePages: true);
app.UseAntiforgery();

app.MapGet("/healthz", () => "ok");
app.MapStaticAssets();
app.MapRazorComponents<App>()
    .AddInteractiveServerRenderMode();

app.Run();
