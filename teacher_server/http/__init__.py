"""The teacher as a service: what stands between an engine and whoever asks it over HTTP. Imports no Ray and no vLLM."""
