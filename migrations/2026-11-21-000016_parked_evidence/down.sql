drop table parked_evidence;
