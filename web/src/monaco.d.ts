// Monaco reads this global; its package declares it only for its own bundled entry point.
declare var MonacoEnvironment: { getWorker(id: string, label: string): Worker } | undefined;
