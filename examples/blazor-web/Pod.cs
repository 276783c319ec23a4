namespace BlazorWeb;

/// <summary>What tells this pod from the others.</summary>
public static class Pod
{
    /// <summary>The name that every answer bears, to show which pod gave it.</summary>
    public static string Name { get; } = Variable("POD") ?? Environment.MachineName;

    public static string? Variable(string name) =>
        Environment.GetEnvironmentVariable(name) is { } value && !string.IsNullOrWhiteSpace(value) ? value.Trim() : null;
}
